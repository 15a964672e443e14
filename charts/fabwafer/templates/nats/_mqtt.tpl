{{- define "fabwafer.mqttPort" -}}
{{ ternary 8883 1883 .Values.mqtt.tls.enabled }}
{{- end }}

{{- define "fabwafer.mqttUrl" -}}
{{ ternary "mqtts" "mqtt" .Values.mqtt.tls.enabled }}://fabwafer-mqtt:{{ include "fabwafer.mqttPort" . }}
{{- end }}

{{/* The Secret with the listener's certificate. */}}
{{- define "fabwafer.mqttSecret" -}}
{{- default "fabwafer-mqtt-tls" .Values.mqtt.tls.existingSecret }}
{{- end }}

{{/* What a client within the release needs to trust the listener. */}}
{{- define "fabwafer.mqttTrustEnv" -}}
{{- if .Values.mqtt.tls.enabled }}
- {name: FABWAFER_MQTT_CA_FILE, value: /run/mqtt-tls/tls.crt}
{{- end }}
{{- end }}

{{- define "fabwafer.mqttTrustVolume" -}}
{{- if .Values.mqtt.tls.enabled }}
- name: mqtt-tls
  secret:
    secretName: {{ include "fabwafer.mqttSecret" . | quote }}
    defaultMode: 0440
    items: # not its key
      - {key: tls.crt, path: tls.crt}
{{- end }}
{{- end }}

{{- define "fabwafer.mqttTrustMount" -}}
{{- if .Values.mqtt.tls.enabled }}
- {name: mqtt-tls, mountPath: /run/mqtt-tls, readOnly: true}
{{- end }}
{{- end }}
