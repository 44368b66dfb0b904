{{/* All that the operator may do, and nothing else. It reads no Secrets, grants no rights, and runs nothing in pods. */}}

{{/* In each namespace that it watches. */}}
{{- define "tempo.rules.namespaced" -}}
- apiGroups: [serving.tempo.dev]
  resources: [tempopools]
  verbs: [get, list, watch]
- apiGroups: [serving.tempo.dev]
  resources: [tempopools/status]
  verbs: [patch]
# What a pool is made of names the pool as an owner that waits for it; some clusters ask for this right then.
- apiGroups: [serving.tempo.dev]
  resources: [tempopools/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* In the whole cluster: classes belong to no namespace. */}}
{{- define "tempo.rules.cluster" -}}
- apiGroups: [serving.tempo.dev]
  resources: [sloclasses]
  verbs: [get, list, watch]
- apiGroups: [serving.tempo.dev]
  resources: [sloclasses/status]
  verbs: [patch]
{{- end }}

{{/* In the release's own namespace: which of several operators acts. */}}
{{- define "tempo.rules.lease" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "tempo.operator" . }}]
  verbs: [get, update]
{{- end }}
