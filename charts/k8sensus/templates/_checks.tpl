{{- /* The checks that values.schema.json cannot express, or not clearly. Renders nothing. */}}
{{- define "k8sensus.checks" -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs service.enabled" }}
{{- end }}
{{- $labels := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "helm.sh/chart" }}
{{- range $value, $map := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "serviceMonitor.labels" .Values.serviceMonitor.labels }}
{{- range $key := keys $map }}
{{- if has $key $labels }}
{{- fail (printf "%s: the chart sets %s itself" $value $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey .Values.podAnnotations "kubectl.kubernetes.io/default-container" }}
{{- fail "podAnnotations: the chart sets kubectl.kubernetes.io/default-container itself" }}
{{- end }}
{{- $variables := list "POD_NAME" "POD_NAMESPACE" "K8SENSUS_CANDIDATE_IMAGE" "K8SENSUS_LEASE_NAME" "K8SENSUS_NAMESPACES" "K8SENSUS_LISTEN" "K8SENSUS_LOG_FORMAT" "K8SENSUS_CONCURRENCY" "RUST_LOG" }}
{{- range .Values.extraEnv }}
{{- if has .name $variables }}
{{- fail (printf "extraEnv: %s has a value of its own, see values.yaml" .name) }}
{{- end }}
{{- end }}
{{- end }}
