{{/* A value as text. YAML's numbers come as floating point, and 5000000 would be 5e+06. */}}
{{- define "foretell.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Where the database is: for who speaks SQL. */}}
{{- define "foretell.env.database" -}}
- name: FORETELL_DATABASE_URL
  valueFrom:
    secretKeyRef:
{{- if eq .Values.postgresql.mode "cloudnativepg" }}
      name: {{ include "foretell.postgresName" . }}-app
      key: uri
{{- else }}
      name: {{ .Values.postgresql.external.existingSecret }}
      key: {{ .Values.postgresql.external.key }}
{{- end }}
{{- with .Values.postgresql.pooler }}
- name: FORETELL_DATABASE_POOLER
  value: {{ . }}
{{- end }}
{{- end -}}

{{/* Where the broker is: for who speaks AMQP. */}}
{{- define "foretell.env.broker" -}}
{{- if eq .Values.rabbitmq.mode "operator" -}}
{{- $name := include "foretell.rabbitmqName" . -}}
- name: RABBITMQ_USERNAME
  valueFrom: {secretKeyRef: {name: {{ $name }}-default-user, key: username}}
- name: RABBITMQ_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $name }}-default-user, key: password}}
{{- $hosts := list }}
{{- range until (int .Values.rabbitmq.operator.replicas) }}
{{- $hosts = append $hosts (printf "%s-server-%d.%s-nodes.%s:5672" $name . $name $.Release.Namespace) }}
{{- end }}
# Each node by its name: several hosts in the URL mean a cluster, in which no queue is given up.
- name: FORETELL_BROKER_URL
  value: amqp://$(RABBITMQ_USERNAME):$(RABBITMQ_PASSWORD)@{{ join "," $hosts }}/
{{- else -}}
- name: FORETELL_BROKER_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.rabbitmq.external.existingSecret }}
      key: {{ .Values.rabbitmq.external.key }}
{{- end }}
{{- with .Values.rabbitmq.prefix }}
- name: FORETELL_BROKER_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* One of the secrets that services share: .root, .variable, .key. */}}
{{- define "foretell.env.secret" -}}
- name: {{ .variable }}
  valueFrom: {secretKeyRef: {name: {{ include "foretell.secretsName" .root }}, key: {{ .key }}}}
{{- end -}}

{{/* What the bot's token is. */}}
{{- define "foretell.env.telegram" -}}
- name: TELEGRAM_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ required "bot.token.existingSecret: name the Secret that holds the token of the bot." .Values.bot.token.existingSecret }}
      key: {{ .Values.bot.token.key }}
{{- end -}}

{{/* The environment of a component: settings that are no secret, sorted, then the others. .port, .plain, .secret */}}
{{- define "foretell.env" -}}
{{- $root := .root -}}
{{- $plain := dict
  "FORETELL_ENVIRONMENT" $root.Values.environment
  "FORETELL_HOST" "0.0.0.0"
  "FORETELL_PORT" (toString .port)
  "FORETELL_DATA_DIR" "/data"
  "FORETELL_STOP_GRACE_S" (.config.stopGraceSeconds)
-}}
{{- if $root.Values.monitoringService.enabled -}}
{{- $monitoring := printf "http://%s-monitoring-service:8003" (include "foretell.fullname" $root) -}}
{{- if eq .component "monitoring-service" }}{{ $monitoring = "http://127.0.0.1:8003" }}{{ end -}}
{{- $_ := set $plain "FORETELL_MONITORING_URL" $monitoring -}}
{{- end -}}
{{- if and .models (or $root.Values.models.existingClaim $root.Values.models.image.reference) -}}
{{- $_ := set $plain "FORETELL_MODELS_DIR" "/models" -}}
{{- end -}}
{{- $plain = mergeOverwrite $plain (default dict .plain) $root.Values.settings .config.settings -}}
# Shown by the prediction's `worker`, in logs and in reports.
- name: FORETELL_INSTANCE
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- range $name, $value := $plain }}
- name: {{ $name }}
  value: {{ include "foretell.text" $value | quote }}
{{- end }}
{{ include "foretell.env.secret" (dict "root" $root "variable" "FORETELL_MONITORING_TOKEN" "key" "monitoring-token") }}
{{- with .secret }}
{{ . }}
{{- end }}
{{- with .config.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
