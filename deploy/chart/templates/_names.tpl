{{- define "taskmill.fullname" -}}
{{- if contains "taskmill" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-taskmill" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "taskmill.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "taskmill.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "taskmill.fullname" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{/* Of everything; those of a role's pods are "taskmill.selector". */}}
{{- define "taskmill.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/name: taskmill
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* (dict "root" $ "role" "worker") */}}
{{- define "taskmill.selector" -}}
app.kubernetes.io/name: taskmill
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{/* Workers that own one partition each are as many as those. */}}
{{- define "taskmill.workerReplicas" -}}
{{- if .Values.worker.podPerPartition }}{{ int .Values.topics.partitions }}{{ else }}{{ int .Values.worker.replicas }}{{ end }}
{{- end }}

{{- define "taskmill.maxReplicas" -}}
{{- $partitions := int .Values.topics.partitions }}
{{- if kindIs "invalid" .Values.autoscaling.maxReplicas }}{{ $partitions }}{{ else }}{{ min $partitions (int .Values.autoscaling.maxReplicas) }}{{ end }}
{{- end }}

{{/* A name that Kubernetes takes for a topic's, which may hold capitals and underscores. */}}
{{- define "taskmill.resourceName" -}}
{{- $plain := lower . | replace "_" "-" }}
{{- if eq $plain . }}{{ . }}{{ else }}{{ printf "%s-%s" $plain (sha256sum . | trunc 6) }}{{ end }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "taskmill.check" -}}
{{- $values := .Values }}
{{- if and $values.worker.podPerPartition (ne $values.autoscaling.kind "none") }}
{{- fail "worker.podPerPartition fixes the count of pods: set autoscaling.kind to none, or podPerPartition to false" }}
{{- end }}
{{- if and (ne $values.autoscaling.kind "none") (gt (int $values.autoscaling.minReplicas) (int (include "taskmill.maxReplicas" .))) }}
{{- fail (printf "autoscaling.minReplicas: %d is more than the %s pods that there may be (topics.partitions, autoscaling.maxReplicas)" (int $values.autoscaling.minReplicas) (include "taskmill.maxReplicas" .)) }}
{{- end }}
{{- if and (gt (int $values.console.replicas) 1) (not $values.console.store.postgresql.secretName) }}
{{- fail "console.replicas: more than one need PostgreSQL, set console.store.postgresql.secretName" }}
{{- end }}
{{- if and (or $values.strimzi.topics.enabled $values.strimzi.user.enabled) (not $values.strimzi.cluster) }}
{{- fail "strimzi.cluster: name the Kafka resource" }}
{{- end }}
{{- if and $values.strimzi.user.enabled $values.kafka.filesSecretName }}
{{- fail "strimzi.user brings certificates of its own: leave kafka.filesSecretName empty" }}
{{- end }}
{{- if and $values.strimzi.topics.enabled (not $values.strimzi.topics.table) }}
{{- range list "dedup_window_ms" "max_task_bytes" "tasks_retention_ms" }}
{{- if hasKey $values.settings . }}
{{- fail (printf "settings.%s changes what topics must be: set strimzi.topics.table to what `deploy/generate.py --topics` prints with it" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $values.strimzi.topics.enabled (hasKey $values.settings "retry_tiers") (ne (toString $values.settings.retry_tiers) (join "," $values.strimzi.topics.retryTiers)) }}
{{- fail "settings.retry_tiers: name the same ones in strimzi.topics.retryTiers" }}
{{- end }}
{{- end }}
