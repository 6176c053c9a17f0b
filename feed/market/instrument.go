package market

import "math/rand/v2"

// decimals is how many Binance prints of prices and sizes.
const decimals = 8

// instrument is what a symbol is, whatever it does. In units of 10^-8.
type instrument struct {
	name string
	home int64 // the price that it comes back to
	tick int64 // what prices are multiples of
	lot  int64 // what sizes are multiples of
	lots int64 // how many lots make about one unit of the quote currency
}

// majors are the symbols that come first, the busiest first: name, price,
// tick size.
var majors = []struct{ name, price, tick string }{
	{"BTCUSDT", "61837.63", "0.01"}, {"ETHUSDT", "2683.81", "0.01"}, {"SOLUSDT", "154.27", "0.01"},
	{"XRPUSDT", "0.6173", "0.0001"}, {"BNBUSDT", "524.60", "0.01"}, {"DOGEUSDT", "0.10562", "0.00001"},
	{"ADAUSDT", "0.3482", "0.0001"}, {"AVAXUSDT", "22.41", "0.01"}, {"LINKUSDT", "10.53", "0.01"},
	{"DOTUSDT", "4.713", "0.001"}, {"LTCUSDT", "62.14", "0.01"}, {"TRXUSDT", "0.1265", "0.0001"},
	{"SHIBUSDT", "0.00001412", "0.00000001"}, {"BCHUSDT", "352.7", "0.1"}, {"UNIUSDT", "6.214", "0.001"},
	{"ATOMUSDT", "4.871", "0.001"}, {"SUIUSDT", "0.9134", "0.0001"}, {"NEARUSDT", "4.213", "0.001"},
	{"XLMUSDT", "0.1021", "0.0001"}, {"FILUSDT", "3.782", "0.001"}, {"APTUSDT", "6.12", "0.01"},
	{"ARBUSDT", "0.5873", "0.0001"}, {"OPUSDT", "1.412", "0.001"}, {"INJUSDT", "18.64", "0.01"},
	{"AAVEUSDT", "104.3", "0.1"}, {"ETCUSDT", "18.92", "0.01"}, {"ICPUSDT", "7.814", "0.001"},
	{"HBARUSDT", "0.0572", "0.0001"}, {"RUNEUSDT", "3.928", "0.001"}, {"IMXUSDT", "1.127", "0.001"},
	{"FTMUSDT", "0.3518", "0.0001"}, {"SEIUSDT", "0.2714", "0.0001"}, {"TIAUSDT", "5.236", "0.001"},
	{"ALGOUSDT", "0.1243", "0.0001"}, {"GRTUSDT", "0.1537", "0.0001"}, {"VETUSDT", "0.02184", "0.00001"},
	{"MKRUSDT", "2041", "1"}, {"LDOUSDT", "1.073", "0.001"}, {"CRVUSDT", "0.2651", "0.0001"},
	{"SANDUSDT", "0.2487", "0.0001"}, {"MANAUSDT", "0.2613", "0.0001"}, {"AXSUSDT", "4.71", "0.01"},
	{"EGLDUSDT", "26.48", "0.01"}, {"THETAUSDT", "1.186", "0.001"}, {"FLOWUSDT", "0.532", "0.001"},
	{"KAVAUSDT", "0.3127", "0.0001"}, {"COMPUSDT", "42.17", "0.01"}, {"SNXUSDT", "1.318", "0.001"},
	{"ZECUSDT", "36.42", "0.01"}, {"DASHUSDT", "22.73", "0.01"}, {"PEPEUSDT", "0.00000781", "0.00000001"},
	{"WIFUSDT", "1.624", "0.001"},
}

// instrumentAt is the instrument of a rank from 0. It depends on nothing else,
// so that a symbol is the same one in every market.
func instrumentAt(rank int) instrument {
	var it instrument
	if rank < len(majors) {
		m := majors[rank]
		it.name, it.home, it.tick = m.name, units(m.price), units(m.tick)
	} else {
		// A price between 0.01 and 1000, and a tick size of which it has
		// thousands.
		rng := rand.New(rand.NewPCG(uint64(rank), 0x696e737472756d65))
		it.name = coin(rank-len(majors)) + "USDT"
		it.home = 1_000_000
		for range rng.IntN(5) {
			it.home *= 10
		}
		it.home += rng.Int64N(it.home * 9)
		for it.tick = 1; it.tick*50_000 < it.home; {
			it.tick *= 10
		}
		it.home -= it.home % it.tick
	}
	const one = 100_000_000
	for it.lot = one; it.lot > 1 && it.home > one*(one/it.lot); {
		it.lot /= 10
	}
	it.lots = max(1, one*(one/it.lot)/it.home)
	return it
}

// coin is the n-th made-up name, of five letters that can be spoken.
func coin(n int) string {
	const consonants, vowels = "BDFGKLMNPRSTVXZ", "AEIOU"
	n = (n*7919 + 4021) % (15 * 5 * 15 * 5 * 15) // a prime, so that neighbours differ and none comes twice
	var b [5]byte
	for i := range b {
		letters := consonants
		if i%2 == 1 {
			letters = vowels
		}
		b[i] = letters[n%len(letters)]
		n /= len(letters)
	}
	return string(b[:])
}

// units turns a plain decimal into 10^-8.
func units(s string) int64 {
	var v int64
	behind, point := 0, false
	for _, c := range s {
		if c == '.' {
			point = true
			continue
		}
		v = v*10 + int64(c-'0')
		if point {
			behind++
		}
	}
	for range decimals - behind {
		v *= 10
	}
	return v
}
