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

{{/* Where there is a cluster it is the image that has Ray. */}}
{{- define "livesr.image" -}}
{{- $made := printf "%s%s%s" .Chart.AppVersion (ternary "-gpu" "" .Values.gpu.enabled) (ternary "-cluster" "" .Values.cluster.enabled) -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default $made }}{{ end }}
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

{{/* The RayCluster's name, after which KubeRay calls its head's Service and the Secret of its token. */}}
{{- define "livesr.rayHead" -}}
{{ include "livesr.name" . }}-head-svc:6379
{{- end }}

{{- define "livesr.rayPort" -}}
6380
{{- end }}

{{/* The least that Ray takes, in bytes: no picture goes through its store. */}}
{{- define "livesr.rayStore" -}}
78643200
{{- end }}

{{- define "livesr.rayEnv" -}}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
- {name: RAY_AUTH_MODE, value: token}
- name: RAY_AUTH_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ include "livesr.name" . }}, key: auth_token}
{{- end }}

{{- define "livesr.rayPeer" -}}
{podSelector: {matchLabels: {ray.io/cluster: {{ include "livesr.name" . }}}}}
{{- end }}

{{/* Whom whoever opens sources may reach. */}}
{{- define "livesr.egress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  to:
    - namespaceSelector: {}
    # A cache of names on the node itself.
    - ipBlock:
        cidr: 169.254.20.10/32
# Public addresses: whoever may name a source must not reach what is inside. Viewers on private networks need no
# line here: they come in, and answers go back.
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except:
          - 0.0.0.0/8
          - 10.0.0.0/8
          - 100.64.0.0/10
          - 127.0.0.0/8
          - 169.254.0.0/16
          - 172.16.0.0/12
          - 192.0.0.0/24
          - 192.168.0.0/16
          - 198.18.0.0/15
          - 224.0.0.0/4
          - 240.0.0.0/4
    - ipBlock:
        cidr: ::/0
        except: ["::/128", "::1/128", "::ffff:0:0/96", "64:ff9b::/96", "fc00::/7", "fe80::/10", "ff00::/8"]
{{- with .Values.networkPolicy.privateSources }}
- to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
{{- end }}
{{- end }}

{{/* What the pods of Ray have in common. */}}
{{- define "livesr.rayPod" -}}
# Whatever a worker leaves behind is the pause container's to reap.
shareProcessNamespace: true
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "livesr.rayProbes" -}}
startupProbe:
  tcpSocket: {port: {{ . }}}
  periodSeconds: 2
  failureThreshold: 150
readinessProbe:
  tcpSocket: {port: {{ . }}}
  periodSeconds: 5
livenessProbe:
  tcpSocket: {port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{- define "livesr.cacheSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-hls-cache
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
