// Package client is the Go client of a gateway: it subscribes, follows, and
// goes on where it was when a connection is lost.
//
// It knows protocol v1 (codec/native) and WebSocket; it knows nothing of the
// gateway's inside. A gateway is not trusted: frames are bounded, and what
// breaks the protocol's promises is told as a [Violation].
//
// A [Client] has one goroutine that reads and calls the handler, the one that
// called [Client.Run], and one that writes, which ends with it. Subscribe and
// Unsubscribe may be called from anywhere, the handler included.
//
//	c, err := client.New(client.Options{URL: "ws://127.0.0.1:8080/v1/ws"})
//	...
//	c.Subscribe(client.Subscription{Channel: codec.ChannelTicker, Symbols: []string{"BTCUSDT"}})
//	err = c.Run(ctx, client.Handler{Update: func(u *client.Update) error {
//		fmt.Println(u.Symbol, u.Price)
//		return nil
//	}})
package client
