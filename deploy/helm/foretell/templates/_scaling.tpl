{{/*
A pool of workers by KEDA. Its RabbitMQ scaler counts envelopes that are ready, each of one to 256 tasks; these figures
come from the database. Both triggers say how many workers there should be, and the larger number wins: the first
multiplies those that run by how far the promise is missed, the second sees a burst before anybody has waited.
*/}}
{{- define "foretell.workerScaler" -}}
{{- $scaling := .config.autoscaling -}}
{{- $asked := .root.Values.autoscaling -}}
{{- $matchers := default (printf "namespace=\"%s\"" .root.Release.Namespace) $asked.matchers -}}
{{- $queue := "ml_tasks" -}}
{{- with .pool }}{{ $queue = printf "ml_tasks.%s" . }}{{ end -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ include "foretell.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "foretell.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ include "foretell.componentName" . }}
  minReplicaCount: {{ $scaling.minReplicas }}
  maxReplicaCount: {{ $scaling.maxReplicas }}
  pollingInterval: {{ $scaling.pollingIntervalSeconds }}
  cooldownPeriod: {{ $scaling.cooldownSeconds }}
  fallback:
    failureThreshold: 3
    replicas: {{ $scaling.fallbackReplicas }}
    behavior: currentReplicasIfHigher
  {{- with $scaling.behavior }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        {{- toYaml . | nindent 8 }}
  {{- end }}
  triggers:
    - type: prometheus
      name: waiting
      metricType: Value
      metadata:
        serverAddress: {{ required "autoscaling.prometheusUrl: KEDA must be told where Prometheus is." $asked.prometheusUrl }}
        query: max(foretell_queue_oldest_task_age_seconds{ {{- $matchers }},queue="{{ $queue }}"})
        threshold: {{ include "foretell.text" $scaling.waitSeconds | quote }}
        activationThreshold: "0"
        # Nothing known is not nothing waiting.
        ignoreNullValues: "false"
      {{- with $asked.authenticationRef }}
      authenticationRef: {name: {{ . }}}
      {{- end }}
    - type: prometheus
      name: queued
      metricType: AverageValue
      metadata:
        serverAddress: {{ $asked.prometheusUrl }}
        query: max(foretell_queue_predictions{ {{- $matchers }},queue="{{ $queue }}"})
        threshold: {{ include "foretell.text" $scaling.queuedPredictionsPerWorker | quote }}
        activationThreshold: "0"
        ignoreNullValues: "false"
      {{- with $asked.authenticationRef }}
      authenticationRef: {name: {{ . }}}
      {{- end }}
{{- end -}}
