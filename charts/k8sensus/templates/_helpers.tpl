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
{{- printf "%s@%s" (include "k8sensus.repository" .) .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" (include "k8sensus.repository" .) (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* The repository with its registry. As in a container's image, the part before the first slash is a registry if it
has a dot or a colon, or is localhost. global.imageRegistry must not replace a registry that was set for this image. */}}
{{- define "k8sensus.repository" -}}
{{- $repository := .Values.image.repository }}
{{- $first := first (splitList "/" $repository) }}
{{- $hasRegistry := and (contains "/" $repository) (or (regexMatch "[.:]" $first) (eq $first "localhost")) }}
{{- $path := $hasRegistry | ternary (trimPrefix (print $first "/") $repository) $repository }}
{{- $global := (.Values.global | default dict).imageRegistry }}
{{- if .Values.image.registry }}
{{- printf "%s/%s" .Values.image.registry $path }}
{{- else if and $global (or (not $hasRegistry) (eq $repository "ghcr.io/k8sensus/k8sensus")) }}
{{- printf "%s/%s" $global $path }}
{{- else }}
{{- $repository }}
{{- end }}
{{- end }}

{{- /* imagePullSecrets with those of a parent chart, which may be names instead of objects. */}}
{{- define "k8sensus.imagePullSecrets" -}}
{{- $secrets := list }}
{{- range concat (.Values.imagePullSecrets | default list) ((.Values.global | default dict).imagePullSecrets | default list) }}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- with uniq $secrets -}}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* "true" unless a value is absent or the empty text: 0 is a value. */}}
{{- define "k8sensus.isSet" -}}
{{- if not (or (kindIs "invalid" .) (eq (toString .) "")) -}}
true
{{- end }}
{{- end }}

{{- define "k8sensus.selectorLabels" -}}
app.kubernetes.io/name: {{ include "k8sensus.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- /* No app.kubernetes.io/managed-by: Helm adds it itself, and deploy/base is rendered from the same templates. */}}
{{- define "k8sensus.labels" -}}
{{ include "k8sensus.labelsAnd" (list . nil) }}
{{- end }}

{{- /* Expects the root and the labels of one object, which win over commonLabels. */}}
{{- define "k8sensus.labelsAnd" -}}
{{- $root := first . }}
{{- include "k8sensus.selectorLabels" $root }}
{{ include "k8sensus.versionLabels" $root }}
{{- with merge dict (last . | default dict) ($root.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "k8sensus.versionLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Expects the root and the annotations of one object, which win over commonAnnotations. Empty if there are none. */}}
{{- define "k8sensus.annotations" -}}
{{- $root := first . }}
{{- with merge dict (last . | default dict) ($root.Values.commonAnnotations | default dict) -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
