// Publishes Chromium's fake camera and microphone by WHIP; arguments: URL, codec or "", size.
const [url, codec, width, height, done] = arguments;
(async () => {
  const media = await navigator.mediaDevices.getUserMedia({
    video: { width: { exact: width }, height: { exact: height }, frameRate: 15 },
    audio: true,
  });
  const peer = new RTCPeerConnection();
  for (const track of media.getTracks()) {
    const transceiver = peer.addTransceiver(track, { direction: "sendonly", streams: [media] });
    if (track.kind === "video" && codec) {
      const { codecs } = RTCRtpSender.getCapabilities("video");
      const chosen = codecs.filter(({ mimeType }) => mimeType === `video/${codec}`);
      const rtx = codecs.filter(({ mimeType }) => mimeType === "video/rtx");
      if (!chosen.length) return done("no encoder");
      transceiver.setCodecPreferences([...chosen, ...rtx]);
    }
  }
  await peer.setLocalDescription();
  const headers = { "Content-Type": "application/sdp" };
  const answer = await fetch(url, { method: "POST", headers, body: peer.localDescription.sdp });
  if (answer.status !== 201) return done(answer.status);
  const at = new URL(answer.headers.get("Location"), url);
  window.resource = at.href;
  window.peer = peer;
  peer.onicecandidate = async ({ candidate }) => {
    if (!candidate) return;
    const fragment = `a=ice-ufrag:${candidate.usernameFragment}\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\n` +
      `a=mid:${candidate.sdpMid}\r\na=${candidate.candidate}\r\n`;
    await fetch(at, {
      method: "PATCH",
      headers: { ...headers, "Content-Type": "application/trickle-ice-sdpfrag" },
      body: fragment,
    });
  };
  await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
  done(answer.status);
})().catch((error) => done(String(error)));
