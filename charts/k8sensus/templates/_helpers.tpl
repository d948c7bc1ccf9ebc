{{- define "k8sensus.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- /* At most 52 characters, so that suffixes fit into 63. */}}
{{- define "k8sensus.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "k8sensus.operator" -}}
{{ include "k8sensus.fullname" . }}-operator
{{- end }}

{{- /* The Lease by which the operator's replicas elect. */}}
{{- define "k8sensus.leaseName" -}}
{{ default (include "k8sensus.operator" .) .Values.leaseName }}
{{- end }}

{{- define "k8sensus.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "k8sensus.operator" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "k8sensus.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- define "k8sensus.selectorLabels" -}}
app.kubernetes.io/name: {{ include "k8sensus.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- /* No app.kubernetes.io/managed-by: Helm adds it itself, and deploy/base is rendered from the same templates. */}}
{{- define "k8sensus.labels" -}}
{{ include "k8sensus.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}
