{{- /* The checks that values.schema.json cannot express, or not clearly. Renders nothing. */}}
{{- define "k8sensus.checks" -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs service.enabled" }}
{{- end }}
{{- /* Only an API server serves apiregistration.k8s.io: helm template does not know the cluster, and asserts nothing. */}}
{{- $apis := .Capabilities.APIVersions }}
{{- if and .Values.serviceMonitor.enabled ($apis.Has "apiregistration.k8s.io/v1") (not ($apis.Has "monitoring.coreos.com/v1")) }}
{{- fail "serviceMonitor.enabled needs the CRDs of the Prometheus operator, which this cluster lacks: install them first, or set serviceMonitor.enabled to false" }}
{{- end }}
{{- include "k8sensus.otherRelease" . }}
{{- $labels := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "helm.sh/chart" }}
{{- $maps := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "deploymentLabels" .Values.deploymentLabels }}
{{- range tuple "crds" "serviceAccount" "podDisruptionBudget" "service" "serviceMonitor" "networkPolicy" }}
{{- $_ := set $maps (printf "%s.labels" .) (get $.Values . | default dict).labels }}
{{- end }}
{{- range $value, $map := $maps }}
{{- range $key := keys ($map | default dict) }}
{{- if has $key $labels }}
{{- fail (printf "%s: the chart sets %s itself" $value $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey (.Values.podAnnotations | default dict) "kubectl.kubernetes.io/default-container" }}
{{- fail "podAnnotations: the chart sets kubectl.kubernetes.io/default-container itself" }}
{{- end }}
{{- $variables := list "POD_NAME" "POD_NAMESPACE" "K8SENSUS_CANDIDATE_IMAGE" "K8SENSUS_LEASE_NAME" "K8SENSUS_NAMESPACES" "K8SENSUS_LISTEN" "K8SENSUS_LOG_FORMAT" "K8SENSUS_CONCURRENCY" "RUST_LOG" }}
{{- range .Values.extraEnv }}
{{- if has .name $variables }}
{{- fail (printf "extraEnv: %s has a value of its own, see values.yaml" .name) }}
{{- end }}
{{- end }}
{{- /* The operator's Role, its probes and the Service depend on these, and an argument wins over the environment. */}}
{{- $arguments := list "--candidate-image" "--lease-name" "--lease-namespace" "--identity" "--listen" "--concurrency" "--namespaces" "--log-format" }}
{{- range .Values.extraArgs }}
{{- if has (first (splitList "=" .)) $arguments }}
{{- fail (printf "extraArgs: %s is set by the chart, see values.yaml" (first (splitList "=" .))) }}
{{- end }}
{{- end }}
{{- $volumes := list }}
{{- range .Values.extraVolumes }}
{{- $volumes = append $volumes .name }}
{{- end }}
{{- range .Values.extraVolumeMounts }}
{{- if not (has .name $volumes) }}
{{- fail (printf "extraVolumeMounts: extraVolumes has no volume %s" .name) }}
{{- end }}
{{- end }}
{{- $minimum := .Values.podDisruptionBudget.minAvailable }}
{{- if include "k8sensus.isSet" $minimum }}
{{- if include "k8sensus.isSet" .Values.podDisruptionBudget.maxUnavailable }}
{{- fail "podDisruptionBudget: set minAvailable or maxUnavailable, not both" }}
{{- end }}
{{- if and (gt (int .Values.replicas) 1) (or (eq (toString $minimum) "100%") (and (not (kindIs "string" $minimum)) (ge (int $minimum) (int .Values.replicas)))) }}
{{- fail (printf "podDisruptionBudget.minAvailable: %v of %v replicas would block every drain of a node; set fewer" $minimum .Values.replicas) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The CRD of another release, whose operator serves the groups. A release that is gone may have left its CRD: Helm's
own message says how to adopt it (--take-ownership). Without a cluster lookup finds nothing. */}}
{{- define "k8sensus.otherRelease" -}}
{{- if and .Values.crds.enabled .Release.IsInstall }}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "electiongroups.k8sensus.dev" }}
{{- $owner := ($crd.metadata | default dict).annotations | default dict }}
{{- $name := get $owner "meta.helm.sh/release-name" }}
{{- $namespace := get $owner "meta.helm.sh/release-namespace" }}
{{- if and $name $namespace (or (ne $name .Release.Name) (ne $namespace .Release.Namespace)) }}
{{- range (lookup "apps/v1" "Deployment" $namespace "").items }}
{{- $labels := .metadata.labels | default dict }}
{{- if and (eq (get $labels "app.kubernetes.io/instance") $name) (hasPrefix "k8sensus-" (get $labels "helm.sh/chart")) }}
{{- fail (printf "release %s in namespace %s already runs k8sensus in this cluster and owns the CRD of ElectionGroup: upgrade that release, or set crds.enabled=false and let each release serve namespaces of its own (namespaces)" $name $namespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
