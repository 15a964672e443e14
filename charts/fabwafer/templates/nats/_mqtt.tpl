{{- define "fabwafer.mqttPort" -}}
{{ ternary 8883 1883 .Values.mqtt.tls.enabled }}
{{- end }}

{{- define "fabwafer.mqttUrl" -}}
{{ ternary "mqtts" "mqtt" .Values.mqtt.tls.enabled }}://fabwafer-mqtt:{{ include "fabwafer.mqttPort" . }}
{{- end }}
