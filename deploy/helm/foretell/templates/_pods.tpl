{{/*
One service as a Deployment. Takes a dict:
  root, component, config (its values), serve (as in `foretell serve NAME`), port; pool (of workers);
  plain (more settings), secret (more of the environment, as YAML); models (whether it reads packages of models), writes (whether it writes them);
  startupSeconds; claim (of its data; else what it writes goes with the pod); single (there is never a second one)
*/}}
{{- define "foretell.deployment" -}}
{{- $root := .root -}}
{{- $config := .config -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "foretell.componentName" . }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "foretell.labels" . | nindent 4 }}
spec:
{{- if .single }}
  replicas: 1
{{- else if not (and $config.autoscaling $config.autoscaling.enabled) }}
  replicas: {{ $config.replicas }}
{{- end }}
  revisionHistoryLimit: 5
  strategy:
{{- if .single }}
    # The old one ends before the new one begins: they would share a volume, or Telegram's updates.
    type: Recreate
{{- else }}
    {{- if eq (default "" $config.strategy.type) "Recreate" }}
    type: Recreate
    {{- else }}
    {{- toYaml $config.strategy | nindent 4 }}
    {{- end }}
{{- end }}
  selector:
    matchLabels:
      {{- include "foretell.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "foretell.selectorLabels" . | nindent 8 }}
        {{- with $root.Values.commonLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $config.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        kubectl.kubernetes.io/default-container: {{ .component }}
        {{- with $config.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "foretell.pod" . | nindent 6 }}
{{- end -}}

{{- define "foretell.pod" -}}
{{- $root := .root -}}
{{- $config := .config -}}
serviceAccountName: {{ include "foretell.serviceAccountName" $root }}
automountServiceAccountToken: false
# Kubernetes would set FORETELL_APP_PORT=tcp://… for the Service foretell-app: the name of one of our settings.
enableServiceLinks: false
# The pause before the stop, the stop itself, the 8 s after which it ends itself, and 2 to spare.
terminationGracePeriodSeconds: {{ add $config.preStopSeconds $config.stopGraceSeconds 10 }}
securityContext:
  {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $config.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $config.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $config.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $config.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $config.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if $config.topologySpreadConstraints }}
  {{- toYaml $config.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    # Of one release of the pods only: those that go do not count.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "foretell.selectorLabels" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- if and .models $root.Values.models.image.reference }}
initContainers:
  - name: models
    image: {{ $root.Values.models.image.reference }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command: [cp, -R, {{ printf "%s/." (trimSuffix "/" $root.Values.models.image.path) }}, /target/]
    securityContext:
      {{- toYaml $root.Values.containerSecurityContext | nindent 6 }}
    resources:
      requests: {cpu: 50m, memory: 32Mi}
      limits: {memory: 128Mi}
    volumeMounts:
      - {name: models, mountPath: /target}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "foretell.image" . }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command: [foretell, serve, {{ .serve }}]
    env:
      {{- include "foretell.env" . | nindent 6 }}
    ports:
      - {name: http, containerPort: {{ .port }}}
    # Up to the first answer: it may wait for a database or load models. /health/live asks nobody else.
    startupProbe:
      httpGet: {path: /health/live, port: http}
      periodSeconds: 2
      timeoutSeconds: 5
      failureThreshold: {{ div .startupSeconds 2 }}
    # Only a process that hangs is killed: without database or broker it is alive, and waits.
    livenessProbe:
      httpGet: {path: /health/live, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      httpGet: {path: /health/ready, port: http}
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 2
{{- if $config.preStopSeconds }}
    lifecycle:
      # Traffic still comes while Kubernetes tells everybody that this pod is going.
      preStop: {sleep: {seconds: {{ $config.preStopSeconds }}}}
{{- end }}
    resources:
      {{- toYaml $config.resources | nindent 6 }}
    securityContext:
      {{- toYaml $root.Values.containerSecurityContext | nindent 6 }}
    volumeMounts:
      - {name: data, mountPath: /data}
      - {name: tmp, mountPath: /tmp}
{{- if and .models (or $root.Values.models.existingClaim $root.Values.models.image.reference) }}
      - {name: models, mountPath: /models, readOnly: {{ not .writes }}}
{{- end }}
volumes:
  - name: data
{{- if .claim }}
    persistentVolumeClaim: {claimName: {{ .claim }}}
{{- else }}
    emptyDir: {sizeLimit: 256Mi}
{{- end }}
  - name: tmp
    emptyDir: {sizeLimit: 256Mi}
{{- if and .models $root.Values.models.existingClaim }}
  - name: models
    persistentVolumeClaim: {claimName: {{ $root.Values.models.existingClaim }}, readOnly: {{ not .writes }}}
{{- else if and .models $root.Values.models.image.reference }}
  - name: models
    emptyDir: {sizeLimit: {{ $root.Values.models.image.sizeLimit }}}
{{- end }}
{{- end -}}

{{/* The Service of a component. Of workers and dispatchers nobody asks anything but their metrics: .headless */}}
{{- define "foretell.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "foretell.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "foretell.labels" . | nindent 4 }}
  {{- with .config.serviceAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: ClusterIP
{{- if .headless }}
  clusterIP: None
{{- end }}
  selector:
    {{- include "foretell.selectorLabels" . | nindent 4 }}
  ports:
    - {name: http, port: {{ .port }}, targetPort: http, protocol: TCP}
{{- end -}}

{{/* How many of a component may be away when nodes are emptied. One that is not ready holds up nobody. */}}
{{- define "foretell.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "foretell.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "foretell.labels" . | nindent 4 }}
spec:
  {{- /* One of the two: the chart's own default gives way. */ -}}
  {{- $budget := .config.podDisruptionBudget -}}
  {{- if hasKey $budget "minAvailable" }}{{ $budget = pick $budget "minAvailable" }}{{ end }}
  {{- toYaml $budget | nindent 2 }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "foretell.selectorLabels" . | nindent 6 }}
{{- end -}}

{{/* By processor time. */}}
{{- define "foretell.autoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "foretell.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "foretell.labels" . | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ include "foretell.componentName" . }}
  minReplicas: {{ .config.autoscaling.minReplicas }}
  maxReplicas: {{ .config.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ .config.autoscaling.targetCPUUtilizationPercentage }}
{{- with .config.autoscaling.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{/* The volume of a single service. */}}
{{- define "foretell.claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ include "foretell.componentName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "foretell.labels" . | nindent 4 }}
  annotations:
    # What is on it outlives the release.
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteOnce]
  {{- with .config.persistence.storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests: {storage: {{ .config.persistence.size }}}
{{- end -}}
