{{- define "sdpose.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sdpose.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sdpose.labels" -}}
{{ include "sdpose.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "sdpose.keySecret" -}}
{{- if gt (len (compact (list .Values.keys.file .Values.keys.existingSecret (ternary "open" "" .Values.keys.open)))) 1 -}}
{{- fail "keys: give one of file, existingSecret and open" -}}
{{- end -}}
{{- if not (or .Values.keys.file .Values.keys.existingSecret .Values.keys.open) -}}
{{- fail "keys: name a Secret with a key file (keys.existingSecret), or let everyone in who reaches the Service (keys.open: true)" -}}
{{- end -}}
{{- if .Values.keys.existingSecret -}}
{{- .Values.keys.existingSecret -}}
{{- else if .Values.keys.file -}}
{{- include "sdpose.name" . }}-keys
{{- end -}}
{{- end -}}

{{- define "sdpose.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- $tag := $image.tag | default (printf "%s-%s" .Chart.AppVersion .Values.device) -}}
{{- if and (eq $image.pullPolicy "IfNotPresent") (regexMatch "latest|^[^0-9]*$" $tag) -}}
{{- fail (printf "image.tag: %s may come to mean another image, and a node that has one would not look; give a tag with a version, image.digest, or pullPolicy: Always" $tag) -}}
{{- end -}}
{{- printf "%s:%s" $image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* Settings that the chart makes itself; a second word on them would be lost without a word. */}}
{{- define "sdpose.checkSettings" -}}
{{- range $name := list "host" "http_port" "grpc_port" "metrics_port" "key_file" "camera_file" "drain_seconds" "tls_certificate" "tls_key" "tls_client_ca" -}}
{{- if hasKey $.Values.settings $name -}}
{{- fail (printf "settings.%s: the chart sets this one itself; see values.yaml" $name) -}}
{{- end -}}
{{- end -}}
{{- if hasKey .Values.settings "api_keys" -}}
{{- fail "settings.api_keys would be readable in the Deployment; use keys.existingSecret" -}}
{{- end -}}
{{- if and .Values.cameras (or (gt (int .Values.replicas) 1) (ne .Values.autoscaling.kind "none")) -}}
{{- fail "cameras: every pod would read them; set replicas: 1 and autoscaling.kind: none" -}}
{{- end -}}
{{- range .Values.env -}}
{{- if hasPrefix "SDPOSE_" .name -}}
{{- fail (printf "env: %s is a setting of the service; give it in settings" .name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: give the name under which callers come" -}}
{{- end -}}
{{- if and .Values.tls.requireClientCertificate (not .Values.tls.secret) -}}
{{- fail "tls.requireClientCertificate needs tls.secret" -}}
{{- end -}}
{{- end -}}

{{/* A number as it was written: Helm reads 2000000 as 2e+06. */}}
{{- define "sdpose.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}
