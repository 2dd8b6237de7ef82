{{- define "livesr.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "livesr.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "livesr.labels" -}}
{{ include "livesr.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "livesr.image" -}}
{{- $tag := .Values.image.tag | default (printf "%s%s" .Chart.AppVersion (ternary "-gpu" "" .Values.gpu.enabled)) -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "livesr.secret" -}}
{{- if .Values.secrets.existing }}{{ .Values.secrets.existing }}{{ else if .Values.secrets.data }}{{ include "livesr.name" . }}-secrets{{ end }}
{{- end }}

{{/* The settings, with what Kubernetes decides: listeners, where state lies, and the ports of media. */}}
{{- define "livesr.settings" -}}
{{- $server := dict "host" "0.0.0.0" "port" 8080 "metrics_listener" "0.0.0.0:9464" "state" "/var/lib/livesr/livesr.db" -}}
{{- $webrtc := dict -}}
{{- if ne .Values.media.mode "relay" -}}
{{- $_ := set $webrtc "udp_ports" (list (int .Values.media.firstPort) (int .Values.media.lastPort)) -}}
{{- end -}}
{{- with .Values.media.announcedAddresses -}}{{- $_ := set $webrtc "announced_addresses" . -}}{{- end -}}
{{- $decided := dict "server" $server "webrtc" $webrtc -}}
{{- mergeOverwrite (deepCopy .Values.settings) $decided | toToml -}}
{{- end }}

{{/* The node's address is announced where viewers come to the node, and no other is named. */}}
{{- define "livesr.announcesNode" -}}
{{- $node := or (eq .Values.media.mode "hostPort") (and (eq .Values.media.mode "service") (eq .Values.media.service.type "NodePort")) -}}
{{- if and $node (not .Values.media.announcedAddresses) }}true{{ end }}
{{- end }}

{{- define "livesr.drain" -}}
{{- dig "server" "drain_s" 10.0 .Values.settings -}}
{{- end }}

{{- define "livesr.secured" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The most that there may be. */}}
{{- define "livesr.replicas" -}}
{{ ternary .Values.autoscaling.maxReplicas .Values.replicas .Values.autoscaling.enabled }}
{{- end }}
