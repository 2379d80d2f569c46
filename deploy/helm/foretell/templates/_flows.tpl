{{/* One of our own as a peer: .root, .component */}}
{{- define "foretell.peer" -}}
podSelector:
  matchLabels:
    app.kubernetes.io/name: {{ include "foretell.name" .root }}
    app.kubernetes.io/instance: {{ .root.Release.Name }}
    app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Egress to a component: .root, .to, .port */}}
{{- define "foretell.egress.component" -}}
- to:
    - {{- include "foretell.peer" (dict "root" .root "component" .to) | nindent 6 }}
  ports: [{protocol: TCP, port: {{ .port }}}]
{{- end -}}

{{- define "foretell.egress.database" -}}
{{- if eq .Values.postgresql.mode "cloudnativepg" -}}
- to:
    - podSelector: {matchLabels: {cnpg.io/cluster: {{ include "foretell.postgresName" . }}}}
  ports: [{protocol: TCP, port: 5432}]
{{- else -}}
- ports: [{protocol: TCP, port: {{ .Values.postgresql.external.port }}}]
  {{- with .Values.postgresql.external.peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "foretell.egress.broker" -}}
{{- if eq .Values.rabbitmq.mode "operator" -}}
- to:
    - podSelector: {matchLabels: {app.kubernetes.io/name: {{ include "foretell.rabbitmqName" . }}}}
  ports: [{protocol: TCP, port: 5672}]
{{- else -}}
- ports:
    {{- range .Values.rabbitmq.external.ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .Values.rabbitmq.external.peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* The internet, on any port: webhooks and channels of alerts are where their owners have them. */}}
{{- define "foretell.egress.internet" -}}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: {{ toJson .Values.networkPolicy.privateNetworks }}
    - ipBlock:
        cidr: "::/0"
        except: {{ toJson .Values.networkPolicy.privateNetworks6 }}
    {{- range .Values.dispatcher.webhookAllowedNetworks }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end -}}

{{/*
What a component may do: .root, .component, .port; .from (components that ask it), .clients (peers that do), .anybody;
.egress (rules, a list of texts)
*/}}
{{- define "foretell.policy" -}}
{{- $root := .root -}}
{{- $values := .root.Values.networkPolicy -}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "foretell.fullname" $root }}-{{ .component }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "foretell.labels" (dict "root" $root) | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: {{ include "foretell.name" $root }}
      app.kubernetes.io/instance: {{ $root.Release.Name }}
      app.kubernetes.io/component: {{ .component }}
  policyTypes: [Ingress, Egress]
{{- if and .port (or .anybody .from .clients $values.metricsClients) }}
{{- $ports := printf "ports: [{protocol: TCP, port: %d}]" (int .port) }}
  ingress:
    {{- if .anybody }}
    - {{ $ports }}
    {{- else }}
    {{- if or .from .clients }}
    - {{ $ports }}
      from:
        {{- range .from }}
        - {{- include "foretell.peer" (dict "root" $root "component" .) | nindent 10 }}
        {{- end }}
        {{- with .clients }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- end }}
    {{- with $values.metricsClients }}
    - {{ $ports }}
      from:
        {{- toYaml . | nindent 8 }}
    {{- end }}
    {{- end }}
{{- end }}
  egress:
    - to:
        {{- toYaml $values.dnsPeers | nindent 8 }}
      ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
    {{- range .egress }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $values.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
