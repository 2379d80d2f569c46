{{/* "true" where operators may change models: that needs a volume, and a model service that checks packages. */}}
{{- define "foretell.uploads" -}}
{{- if .Values.models.uploads -}}
{{- $_ := required "models.uploads: name the volume that is written, models.existingClaim." .Values.models.existingClaim -}}
{{- if not .Values.modelService.enabled -}}
{{- fail "models.uploads: the model service checks packages, and modelService.enabled is false." -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{/* The name of the application. */}}
{{- define "foretell.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 36 | trimSuffix "-" -}}
{{- end -}}

{{/* What every name begins with. 36 characters, so that the longest of them (what operators make of theirs) has 63. */}}
{{- define "foretell.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The name of a component; .pool for workers other than the common ones. KEDA puts nine characters before it. */}}
{{- define "foretell.componentName" -}}
{{- $name := printf "%s-%s" (include "foretell.fullname" .root) .component -}}
{{- if .pool -}}
{{- $long := printf "%s-%s" $name .pool -}}
{{- if gt (len $long) 54 -}}
{{- printf "%s-%s" ($long | trunc 47 | trimSuffix "-") (sha256sum $long | trunc 6) -}}
{{- else -}}
{{- $long -}}
{{- end -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{/* Which pods are a component's. Never changed: selectors are immutable. */}}
{{- define "foretell.selectorLabels" -}}
app.kubernetes.io/name: {{ include "foretell.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- if eq .component "ml-worker" }}
foretell/pool: {{ default "common" .pool | quote }}
{{- end }}
{{- end -}}

{{/* Labels of what belongs to the release. .component is optional. */}}
{{- define "foretell.labels" -}}
{{- if .component -}}
{{ include "foretell.selectorLabels" . }}
{{- else -}}
app.kubernetes.io/name: {{ include "foretell.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: foretell
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "foretell.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "foretell.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The Secret of what services share. */}}
{{- define "foretell.secretsName" -}}
{{- default (printf "%s-secrets" (include "foretell.fullname" .)) .Values.secrets.existingSecret -}}
{{- end -}}

{{/* What the operators make. */}}
{{- define "foretell.postgresName" -}}
{{- printf "%s-postgres" (include "foretell.fullname" .) -}}
{{- end -}}
{{- define "foretell.rabbitmqName" -}}
{{- printf "%s-rabbitmq" (include "foretell.fullname" .) -}}
{{- end -}}

{{/* The image of a component: .config.image, if it says something, before .Values.image. */}}
{{- define "foretell.image" -}}
{{- $own := default dict .config.image -}}
{{- $all := .root.Values.image -}}
{{- $repository := printf "%s%s" $all.prefix .component -}}
{{- with $all.registry }}{{ $repository = printf "%s/%s" (trimSuffix "/" .) $repository }}{{ end -}}
{{- $repository = default $repository $own.repository -}}
{{- if $own.digest -}}
{{- printf "%s@%s" $repository $own.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default (default .root.Chart.AppVersion $all.tag) $own.tag) -}}
{{- end -}}
{{- end -}}

{{/* The pools of workers as YAML, by name, each with what holds for all of them. */}}
{{- define "foretell.pools" -}}
{{- $pools := dict -}}
{{- range $name, $own := .Values.worker.pools -}}
{{- if not (kindIs "invalid" $own) -}}
{{- $_ := set $pools $name (mergeOverwrite (omit (deepCopy $.Values.worker) "pools") (deepCopy $own)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $pools -}}
{{- end -}}
