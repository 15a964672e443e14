{{/* Pieces of network policies. */}}

{{- /* A peer: pods of this release by their components. (list . "bridge" "setup") */ -}}
{{- define "fabwafer.peers" -}}
- podSelector: {{- include "fabwafer.pods" . | nindent 4 }}
{{- end }}
{{- /* A selector of such pods. */ -}}
{{- define "fabwafer.pods" -}}
matchLabels:
  app.kubernetes.io/name: fabwafer
  app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
matchExpressions:
  - {key: app.kubernetes.io/component, operator: In, values: {{ toJson (rest .) }}}
{{- end }}
{{- define "fabwafer.metricsPeers" -}}
{{- if .Values.networkPolicy.metricsFrom }}
{{- toYaml .Values.networkPolicy.metricsFrom }}
{{- else -}}
- namespaceSelector: {}
{{- end }}
{{- end }}
{{- define "fabwafer.policyMetadata" -}}
metadata:
  name: {{ index . 1 }}
  labels: {{- include "fabwafer.labels" (dict "root" (index . 0)) | nindent 4 }}
{{- end }}
{{- /* The port of a URL. */ -}}
{{- define "fabwafer.urlPort" -}}
{{- $url := urlParse . }}
{{- $known := dict "http" "80" "https" "443" "postgresql" "5432" "nats" "4222" "mqtt" "1883" "mqtts" "8883" }}
{{- if contains ":" $url.host }}{{ last (splitList ":" $url.host) }}{{ else }}{{ get $known (first (splitList "+" $url.scheme)) }}{{ end }}
{{- end }}
{{- define "fabwafer.bucketPorts" -}}
- {port: {{ include "fabwafer.urlPort" (default "https://s3.amazonaws.com" .Values.modelStore.s3Endpoint) }}}
{{- if not .Values.modelStore.s3Secret }}
- {port: 80} # the nodes' own rights, asked for at 169.254.169.254
{{- end }}
{{- end }}

{{/* Peers outside the release: those that networkPolicy.outside names, else any address. */}}
{{- define "fabwafer.outside" -}}
{{- with .Values.networkPolicy.outside }}
to: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
