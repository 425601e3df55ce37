{{/* The restricted Pod Security Standard, and a root that cannot be written. */}}
{{- define "taskmill.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "taskmill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What stands before the containers of any pod. */}}
{{- define "taskmill.podStart" -}}
serviceAccountName: {{ include "taskmill.serviceAccount" . }}
automountServiceAccountToken: false
# A Service taskmill-console would come in as TASKMILL_CONSOLE_PORT=tcp://…, which is a setting's name.
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "taskmill.podSecurity" . | nindent 2 }}
{{- end }}

{{- define "taskmill.containerStart" -}}
image: {{ include "taskmill.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "taskmill.containerSecurity" . | nindent 2 }}
{{- end }}

{{/*
A role's pod, less its state volume: (dict "root" $ "role" "worker" "values" .Values.worker "args" (list …)
"port" 9464 "portName" "metrics" "grace" 60 "env" (list of EnvVar))
*/}}
{{- define "taskmill.pod" -}}
metadata:
  labels:
    {{- include "taskmill.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
    {{- with .values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Other settings are other pods.
    checksum/settings: {{ include "taskmill.variables" .root | sha256sum }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "taskmill.podStart" .root | nindent 2 }}
  terminationGracePeriodSeconds: {{ .grace }}
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if .values.topologySpreadConstraints }}
    {{- toYaml .values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "taskmill.selector" . | nindent 10 }}
    {{- end }}
  containers:
    - name: {{ .role }}
      {{- include "taskmill.containerStart" .root | nindent 6 }}
      args:
        {{- toYaml .args | nindent 8 }}
      ports:
        - {name: {{ .portName }}, containerPort: {{ .port }}, protocol: TCP}
      envFrom:
        - configMapRef: {name: {{ include "taskmill.fullname" .root }}}
        {{- with include "taskmill.secrets" .root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
      env:
        - {name: TASKMILL_STATE_DIR, value: /var/lib/taskmill}
        {{- range $name, $value := .values.env }}
        - {name: {{ $name }}, value: {{ include "taskmill.plain" $value | quote }}}
        {{- end }}
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      # It lives: nothing of Kafka in it, whose absence no restart mends.
      livenessProbe:
        httpGet: {path: /healthz, port: {{ .portName }}}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # It has restored what it owns, and reaches Kafka.
      readinessProbe:
        httpGet: {path: /readyz, port: {{ .portName }}}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      # Imports and connections, on a slow node.
      startupProbe:
        httpGet: {path: /healthz, port: {{ .portName }}}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        - {name: state, mountPath: /var/lib/taskmill}
        {{- include "taskmill.mounts" .root | nindent 8 }}
  volumes:
    {{- include "taskmill.volumes" .root | nindent 4 }}
{{- end }}
