package bench

// Peers are the servers of bench/peers, by the name of the target: what others
// would build with a well-known library, fed and read as tickgate is.
var Peers = map[string]func(binary string) *Target{}
