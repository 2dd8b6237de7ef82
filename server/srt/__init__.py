"""SRT: a connection by libsrt, and the process that receives what comes by one."""
