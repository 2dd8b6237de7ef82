"""What one client may take: connections, time, bytes and requests a second."""
