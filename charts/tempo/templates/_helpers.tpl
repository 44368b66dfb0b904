{{/* The name that all objects share: the release's, with the chart's in it. */}}
{{- define "tempo.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end }}
{{- end }}

{{- define "tempo.operator" -}}
{{ include "tempo.name" . | trunc 54 | trimSuffix "-" }}-operator
{{- end }}

{{/* For cluster-scoped objects: releases of one name in two namespaces get one each. */}}
{{- define "tempo.clusterName" -}}
{{ printf "%s:%s" .Release.Namespace (include "tempo.name" .) }}
{{- end }}

{{- define "tempo.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "tempo.operator" .) }}
{{- end }}

{{- define "tempo.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "tempo.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "tempo.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: test
{{- end }}

{{- define "tempo.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The watched namespaces as a YAML list; empty: all of them. */}}
{{- define "tempo.namespaces" -}}
{{- if ne (toString .Values.watch.namespaces) "all" -}}
{{ .Values.watch.namespaces | default (list .Release.Namespace) | toYaml }}
{{- end }}
{{- end }}

{{/* Who may read metrics, as NetworkPolicyPeers in JSON. Always the operator: statuses are made of them. */}}
{{- define "tempo.metricsFrom" -}}
{{- $release := dict "kubernetes.io/metadata.name" .Release.Namespace }}
{{- $operator := dict
  "namespaceSelector" (dict "matchLabels" $release)
  "podSelector" (dict "matchLabels" (include "tempo.selector" . | fromYaml)) }}
{{- $anyone := dict "namespaceSelector" dict }}
{{- if .Values.networkPolicy.metricsFrom }}
{{- append .Values.networkPolicy.metricsFrom $operator | toJson }}
{{- else }}
{{- list $anyone | toJson }}
{{- end }}
{{- end }}

{{/* Whether an optional object is wanted: (list . "true|false|auto" "group/version/Kind"). */}}
{{- define "tempo.wanted" -}}
{{- $root := index . 0 }}{{ $wish := toString (index . 1) }}{{ $api := index . 2 -}}
{{- if or (eq $wish "true") (and (eq $wish "auto") ($root.Capabilities.APIVersions.Has $api)) }}true{{ end }}
{{- end }}

{{/* What the restricted pod security standard asks of a pod, and of a container. */}}
{{- define "tempo.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tempo.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
