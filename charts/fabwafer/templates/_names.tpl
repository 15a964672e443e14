{{/* Names, labels and images. */}}

{{- define "fabwafer.labels" -}}
app.kubernetes.io/name: fabwafer
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that never change: those that a selector may name. */}}
{{- define "fabwafer.selector" -}}
app.kubernetes.io/name: fabwafer
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The address of an image: (list . "bridge"). */}}
{{- define "fabwafer.image" -}}
{{- $root := index . 0 }}
{{- $image := index $root.Values.images (index . 1) }}
{{- $registry := default $image.registry $root.Values.imageRegistry }}
{{- $name := printf "%s/%s" $registry $image.repository }}
{{- if $image.digest }}
{{- printf "%s@%s" $name $image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default $root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* The Secret with the passwords between the parts. */}}
{{- define "fabwafer.secret" -}}
{{- default "fabwafer-credentials" .Values.credentials.existingSecret }}
{{- end }}
