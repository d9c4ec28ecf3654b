{{- define "penstock.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- /* First part of the names of all objects: the release's name, with the chart's unless it has that already. */ -}}
{{- define "penstock.fullname" -}}
{{- $name := include "penstock.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- /* Labels of every object, and of pods: none changes with a version, for pods would be replaced by that. */ -}}
{{- define "penstock.commonLabels" -}}
app.kubernetes.io/name: {{ include "penstock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: penstock
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of an object. */ -}}
{{- define "penstock.labels" -}}
{{ include "penstock.commonLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Labels of an object of one part: call with (dict "root" $ "part" "operator"). */ -}}
{{- define "penstock.partLabels" -}}
{{ include "penstock.labels" .root }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- /* Selector of one part's pods, which never changes: call with (dict "root" $ "part" "operator"). */ -}}
{{- define "penstock.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- /*
Image of one part: call with (dict "root" $ "values" .Values.operator). A name with a slash, a tag or a digest is taken
as it is; any other is completed by registry, tag and, where given, digest.
*/ -}}
{{- define "penstock.image" -}}
{{- $name := .values.image -}}
{{- if or (contains "/" $name) (contains ":" $name) (contains "@" $name) -}}
{{ $name }}
{{- else -}}
{{ .root.Values.image.registry }}/{{ $name }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- with .values.digest }}@{{ . }}{{ end -}}
{{- end -}}
{{- end }}

{{- /* Name of one part's ServiceAccount: call with (dict "root" $ "part" "operator" "values" .Values.operator). */ -}}
{{- define "penstock.serviceAccountName" -}}
{{- if .values.serviceAccount.create -}}
{{- .values.serviceAccount.name | default (printf "%s-%s" (include "penstock.fullname" .root) .part) -}}
{{- else -}}
{{- .values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- /* The ServiceAccount of one part, if the chart makes it. As penstock.serviceAccountName, with "automount". */ -}}
{{- define "penstock.serviceAccount" -}}
{{- if .values.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "penstock.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "penstock.partLabels" . | nindent 4 }}
  {{- with .values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: {{ .automount }}
{{- end -}}
{{- end }}

{{- /* Labels and annotations of one part's pods. "annotations" are the part's own; users' win. */ -}}
{{- define "penstock.podMetadata" -}}
labels:
  {{- include "penstock.commonLabels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .part }}
  {{- with mergeOverwrite (dict) .root.Values.podLabels .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mergeOverwrite (dict) (.annotations | default dict) .root.Values.podAnnotations .values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Fields of a pod's spec that are the same for all parts: who it is, where it may run. */ -}}
{{- define "penstock.podSpec" -}}
serviceAccountName: {{ include "penstock.serviceAccountName" . }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /*
Of containers that make FUSE mounts for the whole node: call with the part's values. Their image's user is not root, and
only root may open /dev/fuse and write the kubelet's folders.
*/ -}}
{{- define "penstock.nodeSecurityContext" -}}
privileged: true
runAsUser: 0
runAsGroup: 0
runAsNonRoot: false
{{- with .seLinuxOptions }}
seLinuxOptions: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
