{{/* What the cluster lacks now and can be given later: lines for NOTES.txt. Empty where helm cannot ask the cluster. */}}
{{- define "fabwafer.warnings" -}}
{{- if include "fabwafer.live" . }}
{{- include "fabwafer.missingSecrets" . }}
{{- if not .Release.IsUpgrade }}{{ include "fabwafer.missingStorageClass" . }}{{ end }}
{{- end }}
{{- if and (not .Values.modelStore.url) (not (has "ReadWriteMany" .Values.modelStore.storage.accessModes)) }}
{{- range $name, $count := dict "bridge.replicas" .Values.bridge.replicas "predictor.replicas" .Values.predictor.replicas "retraining.workers" .Values.retraining.workers }}
{{- if gt (int $count) 1 }}
- {{ $name }} is {{ $count }}, and modelStore.storage.accessModes has no ReadWriteMany: the pods
can only run on one node.
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fabwafer.missingSecrets" -}}
{{- $named := list
  (list "credentials.existingSecret" .Values.credentials.existingSecret (list "nats-password" "device-auth-password" "database-password"))
  (list "mqtt.tls.existingSecret" .Values.mqtt.tls.existingSecret (list "tls.crt" "tls.key"))
  (list "modelStore.s3Secret" .Values.modelStore.s3Secret (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY"))
  (list "bridge.webhookSecret" .Values.bridge.webhookSecret (list "webhook-secret")) }}
{{- range .Values.imagePullSecrets }}
{{- $named = append $named (list "imagePullSecrets" . (list)) }}
{{- end }}
{{- range $named }}
{{- $value := index . 0 }}
{{- $name := index . 1 }}
{{- if $name }}
{{- $found := lookup "v1" "Secret" $.Release.Namespace $name }}
{{- if not $found }}
- There is no Secret {{ $name }} in the namespace {{ $.Release.Namespace }}, which {{ $value }} names. The pods that use it wait for it.
{{- else }}
{{- range index . 2 }}
{{- if not (hasKey ($found.data | default dict) .) }}
- The Secret {{ $name }}, which {{ $value }} names, has no key {{ . }}.
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Asks for the classes only where a claim names none: who may install into one namespace may not list them. */}}
{{- define "fabwafer.missingStorageClass" -}}
{{- $claims := dict "nats" .Values.nats.storage }}
{{- if .Values.postgresql.enabled }}{{ $_ := set $claims "postgresql" .Values.postgresql.storage }}{{ end }}
{{- if not .Values.modelStore.url }}{{ $_ := set $claims "modelStore" .Values.modelStore.storage }}{{ end }}
{{- if and .Values.backup.enabled (not .Values.backup.existingClaim) }}{{ $_ := set $claims "backup" .Values.backup.storage }}{{ end }}
{{- $unnamed := list }}
{{- range $part, $claim := $claims }}
{{- if not $claim.storageClassName }}{{ $unnamed = append $unnamed (printf "%s.storage.storageClassName" $part) }}{{ end }}
{{- end }}
{{- if $unnamed }}
{{- $default := "" }}
{{- range (lookup "storage.k8s.io/v1" "StorageClass" "" "").items }}
{{- if eq (dig "metadata" "annotations" "storageclass.kubernetes.io/is-default-class" "" .) "true" }}{{ $default = .metadata.name }}{{ end }}
{{- end }}
{{- if not $default }}
- The cluster has no default StorageClass, and no class is named by {{ join ", " $unnamed }}:
the claims stay Pending until one is. See `kubectl get storageclass`.
{{- end }}
{{- end }}
{{- end }}
