{{/* Values that contradict each other or lack something, each as a line that says which value, and why. What a value may be
by itself is in values.schema.json. */}}
{{- define "fabwafer.problems" -}}
{{- with .Values.mqtt }}
{{- if and .tls.enabled (not .tls.existingSecret) (not .tls.issuer.name) }}
- mqtt.tls.existingSecret is missing: with mqtt.tls.enabled it names the Secret with tls.crt and tls.key; or mqtt.tls.issuer.name names cert-manager's issuer
{{- end }}
{{- if and .tls.existingSecret (not .tls.enabled) }}
- mqtt.tls.existingSecret is set and mqtt.tls.enabled is false: devices would send their passwords unencrypted
{{- end }}
{{- if and .tls.issuer.name (not .tls.enabled) }}
- mqtt.tls.issuer.name is set and mqtt.tls.enabled is false: devices would send their passwords unencrypted
{{- end }}
{{- if and .tls.issuer.name .tls.existingSecret }}
- mqtt.tls.issuer.name and mqtt.tls.existingSecret are both set: cert-manager would overwrite that Secret
{{- end }}
{{- if and .service.nodePort (eq .service.type "ClusterIP") }}
- mqtt.service.nodePort is set and mqtt.service.type is ClusterIP, which has no port on the nodes: set it to NodePort or LoadBalancer
{{- end }}
{{- if and .service.loadBalancerSourceRanges (ne .service.type "LoadBalancer") }}
- mqtt.service.loadBalancerSourceRanges is set and mqtt.service.type is {{ .service.type }}, where every address may connect: only LoadBalancer has source ranges
{{- end }}
{{- end }}
{{- if .Values.postgresql.enabled }}
{{- if .Values.externalDatabase.url }}
- externalDatabase.url is set and postgresql.enabled is true: set it to false, or the records go to the bundled database
{{- end }}
{{- else }}
{{- if not .Values.externalDatabase.url }}
- externalDatabase.url is missing: with postgresql.enabled=false it names the database, postgresql://HOST:PORT/NAME
{{- end }}
{{- if not .Values.credentials.existingSecret }}
- credentials.existingSecret is missing: with postgresql.enabled=false its key database-password is the password of your database, and nats-password and device-auth-password are two passwords that you make up
{{- end }}
{{- end }}
{{- with .Values.modelStore }}
{{- if not .url }}
{{- if or .s3Endpoint .s3Secret }}
- modelStore.{{ ternary "s3Endpoint" "s3Secret" (ne .s3Endpoint "") }} is set and modelStore.url is not: without an address s3://BUCKET/PREFIX the models are on the volume
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.bridge.webhookSecret (not .Values.bridge.webhookUrl) }}
- bridge.webhookSecret is set and bridge.webhookUrl is not: there is nothing to sign
{{- end }}
{{- with .Values.nats }}
{{- $size := include "fabwafer.bytes" .storage.size | float64 }}
{{- $limits := add (int64 .mqttMaxBytes) (mul 3 (int64 .streamMaxBytes)) }}
{{- if lt $size (float64 $limits) }}
- nats.storage.size is {{ .storage.size }}, less than the streams may hold: nats.mqttMaxBytes and three times nats.streamMaxBytes are {{ $limits }} bytes
{{- end }}
{{- end }}
{{- $own := keys (include "fabwafer.labels" (dict "root" (set (deepCopy .) "Values" dict) "component" "any") | fromYaml) }}
{{- range $key, $_ := .Values.commonLabels }}
{{- if has $key (append $own "fabwafer/serves") }}
- commonLabels.{{ $key }} is a label that the chart sets itself
{{- end }}
{{- end }}
{{- if hasKey (.Values.predictor.podAnnotations | default dict) "fabwafer/model-version" }}
- predictor.podAnnotations.fabwafer/model-version is not for the chart to set: `fabwafer model promote` names the version that serves
{{- end }}
{{- if and .Values.kserve.enabled (include "fabwafer.live" .) (not (.Capabilities.APIVersions.Has "serving.kserve.io/v1beta1/InferenceService")) }}
- kserve.enabled is true, but the cluster has no InferenceService of serving.kserve.io/v1beta1: install KServe 0.20 or newer, or set kserve.enabled=false
{{- end }}
{{- end }}

{{/* `true` where helm can ask the cluster, else empty: every cluster has Secrets to list, if only an empty list. */}}
{{- define "fabwafer.live" -}}
{{- if lookup "v1" "Secret" .Release.Namespace "" }}true{{ end }}
{{- end }}

{{/* A quantity of Kubernetes, such as 20Gi, in bytes. */}}
{{- define "fabwafer.bytes" -}}
{{- $units := dict "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 }}
{{- $number := regexFind "^[0-9.]+" . }}
{{- printf "%.0f" (mulf (float64 $number) (float64 (get $units (trimPrefix $number .) | default 1))) }}
{{- end }}
