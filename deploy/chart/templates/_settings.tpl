{{/* A number of YAML is a float for Helm, which writes 691200000 as 6.912e+08. */}}
{{- define "taskmill.plain" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* Kafka's settings, with those that a Strimzi user's certificate asks for. */}}
{{- define "taskmill.kafkaSettings" -}}
{{- $settings := dict }}
{{- if .Values.strimzi.user.enabled }}
{{- $settings = dict "security.protocol" "SSL" "ssl.ca.location" "/etc/taskmill/kafka/ca.crt" "ssl.certificate.location" "/etc/taskmill/kafka/user.crt" "ssl.key.location" "/etc/taskmill/kafka/user.key" }}
{{- end }}
{{- toYaml (merge (deepCopy .Values.kafka.settings) $settings) }}
{{- end }}

{{/* The settings of all roles, as variables. */}}
{{- define "taskmill.variables" -}}
TASKMILL_BOOTSTRAP_SERVERS: {{ .Values.kafka.bootstrapServers | quote }}
TASKMILL_PREFIX: {{ .Values.prefix | quote }}
TASKMILL_PARTITIONS: {{ include "taskmill.plain" .Values.topics.partitions | quote }}
{{- range $name, $value := .Values.settings }}
TASKMILL_{{ upper $name }}: {{ include "taskmill.plain" $value | quote }}
{{- end }}
{{- range $name, $value := fromYaml (include "taskmill.kafkaSettings" .) }}
TASKMILL_KAFKA__{{ $name | upper | replace "." "_" }}: {{ include "taskmill.plain" $value | quote }}
{{- end }}
{{- end }}

{{/* Secrets with variables. */}}
{{- define "taskmill.secrets" -}}
{{- with .Values.kafka.secretName }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- range .Values.secretNames }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Volumes and mounts of every pod: a place for passing files, and Kafka's certificates. */}}
{{- define "taskmill.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- if .Values.strimzi.user.enabled }}
- name: kafka-files
  projected:
    defaultMode: 288
    sources:
      - secret:
          name: {{ .Values.strimzi.cluster }}-cluster-ca-cert
          items: [{key: ca.crt, path: ca.crt}]
      - secret:
          name: {{ include "taskmill.fullname" . }}
          items: [{key: user.crt, path: user.crt}, {key: user.key, path: user.key}]
{{- else if .Values.kafka.filesSecretName }}
- name: kafka-files
  secret: {secretName: {{ .Values.kafka.filesSecretName }}, defaultMode: 288}
{{- end }}
{{- end }}

{{- define "taskmill.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if or .Values.strimzi.user.enabled .Values.kafka.filesSecretName }}
- {name: kafka-files, mountPath: /etc/taskmill/kafka, readOnly: true}
{{- end }}
{{- end }}
