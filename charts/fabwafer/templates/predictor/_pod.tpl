{{/* The pod that serves a model, as an InferenceService's predictor or as a Deployment's template. */}}

{{/* Which of the two: (include "fabwafer.serving" .) is `handlers` or `kserveModel`, the name of its image. */}}
{{- define "fabwafer.serving" -}}
{{ ternary "kserveModel" "handlers" (eq .Values.predictor.runtime "kserve") }}
{{- end }}

{{- define "fabwafer.servingContainer" -}}
{{- $kserve := eq .Values.predictor.runtime "kserve" -}}
name: kserve-container
{{ include "fabwafer.containerImage" (list . (include "fabwafer.serving" .)) }}
{{- if $kserve }}
command: [python, -m, fabwafer_handlers.kserve_model, --model_dir, /models/wafer]
{{- else }}
command: [python, -m, fabwafer_handlers.serve, --config, /models/config.properties]
{{- end }}
{{- with .Values.predictor.extraEnv }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: http, containerPort: 8080, protocol: TCP}
  {{- if not $kserve }}
  - {name: metrics, containerPort: 8082, protocol: TCP}
  {{- end }}
# They ask for the model: the server's process answers before it has loaded one.
startupProbe:
  httpGet: &model {path: {{ ternary "/v2/models/wafer/ready" "/predictions/wafer" $kserve }}, port: 8080}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 120
readinessProbe:
  httpGet: *model
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 3
# A worker that died is back within seconds; a server that has had no model for two minutes is started again.
livenessProbe:
  httpGet: *model
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 12
lifecycle:
  preStop:
    # Until the Service has let go of this pod; the server itself ends at once.
    exec: {command: [sleep, "5"]}
resources: {{- toYaml .Values.predictor.resources | nindent 2 }}
securityContext: {{- include "fabwafer.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: model, mountPath: /models}
  - {name: tmp, mountPath: /tmp}
  {{- with .Values.predictor.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Fetches the version that the pod's annotation names, and waits while it names none. */}}
{{- define "fabwafer.servingPreparation" -}}
name: model
{{ include "fabwafer.containerImage" (list . (include "fabwafer.serving" .)) }}
command: [python, -m, fabwafer_handlers.prepare, --version-file, /etc/podinfo/model-version, --out, /models]
env:
  {{- include "fabwafer.storeEnv" . | nindent 2 }}
  {{- with .Values.predictor.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  requests: {cpu: 50m, memory: 128Mi}
  limits: {memory: 512Mi}
securityContext: {{- include "fabwafer.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: model, mountPath: /models}
  - {name: podinfo, mountPath: /etc/podinfo, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  {{- if not .Values.modelStore.url }}
  - {name: store, mountPath: /store, readOnly: true}
  {{- end }}
  {{- with .Values.predictor.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "fabwafer.servingVolumes" -}}
- name: model
  emptyDir: {sizeLimit: 1Gi}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
- name: podinfo
  downwardAPI:
    items:
      - path: model-version
        fieldRef: {fieldPath: "metadata.annotations['fabwafer/model-version']"}
{{- if not .Values.modelStore.url }}
- name: store
  persistentVolumeClaim: {claimName: fabwafer-models, readOnly: true}
{{- end }}
{{- with .Values.predictor.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What an InferenceService's predictor and a Deployment's pod have in common otherwise. */}}
{{- define "fabwafer.servingPod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 45 # the pause before the end, and a request of 10 s
securityContext: {{- include "fabwafer.podSecurity" . | nindent 2 }}
{{- include "fabwafer.placement" (dict "root" $ "values" .Values.predictor) }}
{{ include "fabwafer.spread" (dict "root" $ "component" "predictor") }}
initContainers:
  - {{- include "fabwafer.servingPreparation" . | nindent 4 }}
volumes: {{- include "fabwafer.servingVolumes" . | nindent 2 }}
{{- end }}
