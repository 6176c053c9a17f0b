package socket

// Socket is one client connection that has been upgraded.
type Socket struct{}
