// Command oracle sums the trades of a recorded Binance file the plain way, with
// the standard library only and nothing of tickgate's: what the whole house
// must agree with, digit for digit.
//
//	go run ./testdata/oracle FILE.raw.gz
//
// It prints one JSON object: symbol, trades, volume and notional (exact), last
// price, the first and the last trade id.
package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log"
	"math/big"
	"os"
	"strings"
)

func main() {
	f, err := os.Open(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		log.Fatal(err)
	}
	var symbol, last string
	var trades, quotes int
	var first, high int64
	volume, notional := new(big.Rat), new(big.Rat)
	in := bufio.NewScanner(z)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		_, text, _ := strings.Cut(in.Text(), " ")
		var m struct {
			Stream string
			Data   map[string]json.RawMessage // a struct would mix up t and T
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			log.Fatalf("%v in %s", err, text)
		}
		if strings.HasSuffix(m.Stream, "@bookTicker") {
			quotes++
		}
		if !strings.HasSuffix(m.Stream, "@trade") {
			continue
		}
		var s, p, q string
		var id int64
		for key, v := range map[string]any{"s": &s, "p": &p, "q": &q, "t": &id} {
			if err := json.Unmarshal(m.Data[key], v); err != nil {
				log.Fatalf("%s: %v in %s", key, err, text)
			}
		}
		if first == 0 {
			first = id
		}
		if id <= high {
			log.Fatalf("trade %d after %d: the file repeats itself", id, high)
		}
		price, _ := new(big.Rat).SetString(p)
		size, _ := new(big.Rat).SetString(q)
		volume.Add(volume, size)
		notional.Add(notional, price.Mul(price, size))
		symbol, last, high = s, p, id
		trades++
	}
	if err := in.Err(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf(`{"symbol":%q,"trades":%d,"quotes":%d,"volume":%q,"notional":%q,"last":%q,"first_id":%d,"last_id":%d}`+"\n",
		symbol, trades, quotes, plain(volume), plain(notional), last, first, high)
}

// plain prints an exact decimal without trailing zeros.
func plain(r *big.Rat) string {
	s := r.FloatString(36)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
