{{/* What pods have in common. */}}

{{/* Where pods run, and how they get their images: (dict "root" . "values" .Values.bridge). */}}
{{- define "fabwafer.placement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The annotations of pods: the chart's own, and the part's podAnnotations, which win:
(dict "values" .Values.bridge "own" (dict "prometheus.io/scrape" "true")). */}}
{{- define "fabwafer.podAnnotations" -}}
{{- toYaml (merge (dict) (.values.podAnnotations | default dict) .own) }}
{{- end }}

{{/* The Pod Security Standard `restricted`. Volumes of data belong to this group; their files are changed only where they
do not. */}}
{{- define "fabwafer.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "fabwafer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* An image and how it is pulled: (list . "bridge"). */}}
{{- define "fabwafer.containerImage" -}}
image: {{ include "fabwafer.image" . | quote }}
imagePullPolicy: {{ (index . 0).Values.imagePullPolicy | quote }}
{{- end }}

{{/* The files with the passwords: mounted by each container that connects to the bus or the database. */}}
{{- define "fabwafer.credentialsVolume" -}}
- name: credentials
  secret:
    secretName: {{ include "fabwafer.secret" . | quote }}
    defaultMode: 0440
{{- end }}

{{- define "fabwafer.credentialsMount" -}}
- name: credentials
  mountPath: /run/secrets/fabwafer
  readOnly: true
{{- end }}

{{/* The bus. All servers are named, so that a client finds another one where its own is away. */}}
{{- define "fabwafer.busEnv" -}}
{{- $servers := list }}
{{- range until (int .Values.nats.replicas) }}
{{- $servers = append $servers (printf "nats://fabwafer-nats-%d.fabwafer-nats:4222" .) }}
{{- end }}
- name: FABWAFER_NATS_URL
  value: {{ join "," $servers }}
- name: FABWAFER_NATS_USER
  value: bridge
- name: FABWAFER_NATS_PASSWORD_FILE
  value: /run/secrets/fabwafer/nats-password
{{- end }}

{{- define "fabwafer.databaseEnv" -}}
- name: FABWAFER_DATABASE_URL
  value: {{ ternary "postgresql://fabwafer-postgresql/fabwafer" .Values.externalDatabase.url .Values.postgresql.enabled | quote }}
- name: FABWAFER_DATABASE_USER
  value: {{ ternary "fabwafer" .Values.externalDatabase.user .Values.postgresql.enabled | quote }}
- name: FABWAFER_DATABASE_PASSWORD_FILE
  value: /run/secrets/fabwafer/database-password
{{- end }}

{{/* The model store: a bucket's address, or the path of the volume. */}}
{{- define "fabwafer.storeEnv" -}}
- name: FABWAFER_MODEL_STORE
  value: {{ default "/store" .Values.modelStore.url | quote }}
{{- with .Values.modelStore.s3Endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.modelStore.s3Secret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.modelStore.s3Secret | quote }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fabwafer.storeVolume" -}}
{{- if not .Values.modelStore.url }}
- name: store
  persistentVolumeClaim:
    claimName: fabwafer-models
{{- end }}
{{- end }}

{{- define "fabwafer.storeMount" -}}
{{- if not .Values.modelStore.url }}
- name: store
  mountPath: /store
{{- end }}
{{- end }}

{{/* A claim's spec: (dict "storage" .Values.nats.storage). */}}
{{- define "fabwafer.claim" -}}
accessModes: {{ toJson (default (list "ReadWriteOnce") .accessModes) }}
{{- with .storageClassName }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .size | quote }}
{{- end }}

{{/* Spread over nodes, as far as there are several: (dict "root" . "component" "nats"). */}}
{{- define "fabwafer.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "fabwafer.selector" . | nindent 8 }}
{{- end }}
