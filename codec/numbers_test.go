package codec

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseDecimal(t *testing.T) {
	for name, tt := range map[string]struct {
		in, want string // want: as printed; "" is absent
		err      error
	}{
		"plain":                        {in: "101.5", want: "101.5"},
		"trailing zeros kept":          {in: "101.50", want: "101.50"},
		"leading zeros dropped":        {in: "00101.50", want: "101.50"},
		"below one":                    {in: ".5", want: "0.5"},
		"a point at the end":           {in: "5.", want: "5"},
		"negative":                     {in: "-0.10", want: "-0.10"},
		"a plus":                       {in: "+3", want: "3"},
		"zero with digits":             {in: "0.000", want: "0.000"},
		"minus zero":                   {in: "-0", want: "0"},
		"small exponent":               {in: "1.5e-7", want: "0.00000015"},
		"large exponent":               {in: "1.5E3", want: "1500"},
		"exponent that eats the point": {in: "1.50e1", want: "15.0"},
		"zero with an exponent":        {in: "0e17", want: "0"},
		"eighteen digits":              {in: "999999999999999999", want: "999999999999999999"},
		"nineteen digits":              {in: "1000000000000000000", err: ErrDigits},
		"nineteen with trailing zeros": {in: "1.000000000000000000", err: ErrDigits},
		"digits by exponent":           {in: "1e18", err: ErrDigits},
		"scale eighteen":               {in: "0.000000000000000001", want: "0.000000000000000001"},
		"scale nineteen":               {in: "0.0000000000000000001", err: ErrScale},
		"scale by exponent":            {in: "1e-19", err: ErrScale},
		"empty":                        {in: "", err: ErrSyntax},
		"a sign alone":                 {in: "-", err: ErrSyntax},
		"a point alone":                {in: ".", err: ErrSyntax},
		"two points":                   {in: "1.2.3", err: ErrSyntax},
		"not a number":                 {in: "NaN", err: ErrSyntax},
		"hex":                          {in: "0x10", err: ErrSyntax},
		"exponent without digits":      {in: "1e", err: ErrSyntax},
		"exponent too long":            {in: "1e99999", err: ErrSyntax},
		"a space":                      {in: "1 ", err: ErrSyntax},
		"a comma":                      {in: "1,5", err: ErrSyntax},
		"a hostile text":               {in: "0." + strings.Repeat("0", 1<<20), err: ErrDigits},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := ParseDecimal([]byte(tt.in))
			if !errors.Is(err, tt.err) || d.String() != tt.want || d.IsSet() != (tt.err == nil) {
				t.Errorf("ParseDecimal(%.40q) = %q, %v, want %q, %v", tt.in, d, err, tt.want, tt.err)
			}
		})
	}
	if d := (Decimal{}); d.IsSet() || d.String() != "" || d.Cmp(MustDecimal("-9")) >= 0 {
		t.Error("the zero Decimal is not absent")
	}
}

func decimals() *rapid.Generator[Decimal] {
	return rapid.Custom(func(t *rapid.T) Decimal {
		d, err := NewDecimal(rapid.Int64Range(-decimalCoefMax, decimalCoefMax).Draw(t, "coef"), rapid.IntRange(0, DecimalScaleMax).Draw(t, "scale"))
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func rat(t interface{ Fatalf(string, ...any) }, s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("%q is no number", s)
	}
	return r
}

func TestDecimalAgainstBig(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := decimals().Draw(t, "a"), decimals().Draw(t, "b")
		if got, want := a.Cmp(b), rat(t, a.String()).Cmp(rat(t, b.String())); got != want {
			t.Fatalf("%v cmp %v = %d, want %d", a, b, got, want)
		}
		if again, err := ParseDecimal(a.AppendText(nil)); err != nil || again != a && a.Sign() != 0 {
			t.Fatalf("%v read back as %v, %v", a, again, err)
		}
		if got, want := rat(t, Mul(a, b).String()), new(big.Rat).Mul(rat(t, a.String()), rat(t, b.String())); got.Cmp(want) != 0 {
			t.Fatalf("%v times %v = %v, want %v", a, b, got, want)
		}
	})
}

// totals are sums and products of decimals, small and huge.
func totals() *rapid.Generator[Total] {
	return rapid.Custom(func(t *rapid.T) Total {
		sum := Mul(decimals().Draw(t, "a"), decimals().Draw(t, "b"))
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			sum = sum.Add(Mul(decimals().Draw(t, "c"), decimals().Draw(t, "d")))
		}
		return sum
	})
}

func TestTotalAgainstBig(t *testing.T) {
	limit := new(big.Int).Lsh(big.NewInt(1), 127)
	rapid.Check(t, func(t *rapid.T) {
		a, b := totals().Draw(t, "a"), totals().Draw(t, "b")
		if a.Lost() || b.Lost() {
			if sum := a.Add(b); !sum.Lost() || sum.String() != "" {
				t.Fatalf("%v + %v = %v", a, b, sum)
			}
			return
		}
		ra, rb := rat(t, a.String()), rat(t, b.String())
		if got, want := a.Cmp(b), ra.Cmp(rb); got != want {
			t.Fatalf("%v cmp %v = %d, want %d", a, b, got, want)
		}
		for name, c := range map[string]struct {
			got  Total
			want *big.Rat
		}{"plus": {a.Add(b), new(big.Rat).Add(ra, rb)}, "minus": {a.Sub(b), new(big.Rat).Sub(ra, rb)}} {
			// The coefficient that the exact result has without trailing zeros.
			coef, scale := new(big.Int).Set(c.want.Num()), 0
			for ten := big.NewInt(10); ; scale++ {
				if r := new(big.Int).Mod(new(big.Int).Mul(c.want.Num(), new(big.Int).Exp(ten, big.NewInt(int64(scale)), nil)), c.want.Denom()); r.Sign() == 0 {
					coef.Div(coef.Mul(coef, new(big.Int).Exp(ten, big.NewInt(int64(scale)), nil)), c.want.Denom())
					break
				}
			}
			fits := coef.CmpAbs(limit) < 0
			if c.got.Lost() == fits {
				t.Fatalf("%v %s %v: lost %v, but the result is %v", a, name, b, c.got.Lost(), c.want)
			}
			if fits && (rat(t, c.got.String()).Cmp(c.want) != 0 || c.got.Scale() != scale) {
				t.Fatalf("%v %s %v = %v, want %v", a, name, b, c.got, c.want)
			}
			if fits {
				if again, err := ParseTotal(c.got.AppendText(nil)); err != nil || again != c.got {
					t.Fatalf("%v read back as %v, %v", c.got, again, err)
				}
			}
		}
	})
}

func TestParseTotalRefuses(t *testing.T) {
	for in, want := range map[string]error{
		"": ErrSyntax, "-": ErrSyntax, "1e5": ErrSyntax, "1.2.3": ErrSyntax, "0." + strings.Repeat("0", 40): ErrScale,
		"170141183460469231731687303715884105728": ErrDigits, strings.Repeat("9", 100): ErrDigits,
	} {
		if got, err := ParseTotal([]byte(in)); !errors.Is(err, want) {
			t.Errorf("ParseTotal(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	if got, err := ParseTotal([]byte("170141183460469231731687303715884105727")); err != nil || got.String() != "170141183460469231731687303715884105727" {
		t.Errorf("the largest total: %v, %v", got, err)
	}
}

func FuzzParseDecimal(f *testing.F) {
	for _, s := range []string{"101.50", "-1e-7", "999999999999999999", "0.000000000000000001", "1E+3", "", "-.5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDecimal([]byte(s))
		if err != nil {
			return
		}
		if again, err := ParseDecimal([]byte(d.String())); err != nil || again != d {
			t.Errorf("ParseDecimal(%q) = %v, read back as %v, %v", s, d, again, err)
		}
		if want := rat(t, s); want.Cmp(rat(t, d.String())) != 0 {
			t.Errorf("ParseDecimal(%q) = %v", s, d)
		}
	})
}

func FuzzParseTotal(f *testing.F) {
	for _, s := range []string{"212.03315", "-0.1", "170141183460469231731687303715884105727", "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseTotal([]byte(s))
		if err != nil {
			return
		}
		if again, err := ParseTotal([]byte(d.String())); err != nil || again != d {
			t.Errorf("ParseTotal(%q) = %v, read back as %v, %v", s, d, again, err)
		}
	})
}

func TestNumbersAllocateNothing(t *testing.T) {
	text := []byte("61837.63000000")
	buf := make([]byte, 0, 64)
	size, sum, three := MustDecimal("0.02000000"), TotalOf(MustDecimal("212.03315")), MustDecimal("3")
	wide := Mul(MustDecimal("999999999999999999"), MustDecimal("0.999999999999999999")) // beyond 64 bits
	size128 := Mul(MustDecimal("-999999999999999999"), MustDecimal("99999999999999.9999"))
	for name, f := range map[string]func(){
		"parse":       func() { ParseDecimal(text) },
		"append":      func() { buf = size.AppendText(buf[:0]) },
		"add":         func() { sum = sum.AddDecimal(size) },
		"subtract":    func() { sum = sum.Sub(TotalOf(size)) },
		"add wide":    func() { wide.Add(size128).Sub(sum) },
		"multiply":    func() { sum = sum.Add(Mul(size, size)) },
		"append sum":  func() { buf = sum.AppendText(buf[:0]) },
		"compare":     func() { size.Cmp(three) },
		"compare sum": func() { wide.Cmp(size128) },
		"parse total": func() { ParseTotal(text) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkParseDecimal(b *testing.B) {
	text := []byte("61837.63000000")
	b.ReportAllocs()
	for b.Loop() {
		ParseDecimal(text)
	}
}

func BenchmarkTotalAdd(b *testing.B) {
	sum, size := TotalOf(MustDecimal("212.03315")), MustDecimal("0.02000000")
	b.ReportAllocs()
	for b.Loop() {
		sum = sum.AddDecimal(size)
	}
}

func BenchmarkTotalAddNotional(b *testing.B) {
	sum, price, size := TotalOf(MustDecimal("13084074.1123886")), MustDecimal("61837.63000000"), MustDecimal("0.02000000")
	b.ReportAllocs()
	for b.Loop() {
		sum = sum.Add(Mul(price, size))
	}
}

func TestSymbolList(t *testing.T) {
	var l SymbolList
	name := []byte("BTCUSDT")
	l.Append(SymbolItem{Name: name})
	l.Append(SymbolItem{Name: []byte("ETH*"), HasFrom: true, Epoch: -5, Seq: 1 << 60})
	l.Append(SymbolItem{Name: nil})
	copy(name, "XXXXXXX")
	var got []SymbolItem
	for it := range l.All() {
		got = append(got, it)
	}
	if l.Len() != 3 || len(got) != 3 || string(got[0].Name) != "BTCUSDT" || got[0].HasFrom ||
		string(got[1].Name) != "ETH*" || !got[1].HasFrom || got[1].Epoch != -5 || got[1].Seq != 1<<60 || len(got[2].Name) != 0 {
		t.Errorf("%d items: %+v", l.Len(), got)
	}
	for range l.All() {
		break // an early end is no fault
	}
}

func TestValidSymbol(t *testing.T) {
	for s, want := range map[string]bool{"BTCUSDT": true, "A": true, "BTC-USD.COINBASE_1": true, strings.Repeat("A", 32): true,
		"": false, strings.Repeat("A", 33): false, "btc": false, "BTC/USD": false, "BTC*": false, "BTC USD": false, "BTC\x00": false, "Ä": false} {
		if ValidSymbol(s) != want || ValidSymbol([]byte(s)) != want {
			t.Errorf("ValidSymbol(%q) is not %v", s, want)
		}
	}
}

func TestSourceNewer(t *testing.T) {
	base := Source{Epoch: 5, Offset: 10, Index: 2}
	for name, tt := range map[string]struct {
		s    Source
		want bool
	}{
		"the same":        {base, false},
		"a later index":   {Source{Epoch: 5, Offset: 10, Index: 3}, true},
		"a later offset":  {Source{Epoch: 5, Offset: 11}, true},
		"a later epoch":   {Source{Epoch: 6}, true},
		"an older epoch":  {Source{Epoch: 4, Offset: 99}, false},
		"another writer":  {Source{Epoch: 5, Offset: 10, Index: 2, ProducerEra: 9}, false},
		"an older offset": {Source{Epoch: 5, Offset: 9, Index: 9}, false},
	} {
		if got := tt.s.Newer(base); got != tt.want {
			t.Errorf("%s: newer %v, want %v", name, got, tt.want)
		}
	}
}

func TestWordsAreDistinct(t *testing.T) {
	for _, c := range []Channel{ChannelTicker, ChannelQuotes, ChannelTrades} {
		if back, ok := ParseChannel(c.String()); !ok || back != c {
			t.Errorf("channel %v reads back as %v", c, back)
		}
	}
	if _, ok := ParseChannel("book"); ok {
		t.Error("book is a channel")
	}
	seen := map[string]bool{}
	for op := OpSubscribe; op <= OpPing; op++ {
		seen[op.String()] = true
	}
	for s := StateLoading; s <= StateReplay; s++ {
		seen[s.String()] = true
	}
	for _, k := range []Kind{KindTrade, KindQuote, KindCorrection, KindCancel, KindStatus, KindFence, KindGap, KindMoved} {
		seen["kind "+k.String()] = true
	}
	if len(seen) != 7+8+8 {
		t.Errorf("%d words of 23: %v", len(seen), seen)
	}
}

func TestCloseReasons(t *testing.T) {
	for _, r := range []CloseReason{CloseNormal, CloseDraining, CloseOverload, CloseStalled, CloseDead, CloseProtocol, CloseTooBig, CloseTooFast,
		CloseBadCommand, CloseSlowMessage, CloseUnauthorized, CloseExpired, CloseInternal, CloseGone} {
		code := r.Code()
		if code < 1000 || code > 1013 && code < 4000 || code > 4999 || code >= 1004 && code <= 1006 {
			t.Errorf("%s: code %d may not be sent", r, code)
		}
		if code >= 4200 && r.Retryable() || code >= 4100 && code < 4200 && !r.Retryable() {
			t.Errorf("%s: code %d, retryable %v", r, code, r.Retryable())
		}
		if len(r) > 123 || !bytes.Equal([]byte(r), bytes.ToLower([]byte(r))) {
			t.Errorf("%s is no reason for a close frame", r)
		}
	}
}

// TestDigits: what is written eight digits at a time is what strconv writes.
func TestDigits(t *testing.T) {
	check := func(n uint64) {
		want := "x" + strconv.FormatUint(n, 10)
		if got := string(AppendUint([]byte("x"), n)); got != want {
			t.Fatalf("AppendUint(%s) = %s", want[1:], got[1:])
		}
	}
	for n := range uint64(20_000) {
		check(n)
	}
	for e, p := 0, uint64(1); e < 20; e, p = e+1, p*10 {
		for d := range uint64(200) {
			check(p + d)
			check(p - d)
			check(p*(d%10) + d)
		}
	}
	for range 200_000 {
		check(rand.Uint64() >> (rand.Uint32() & 63))
	}
	for range 100_000 {
		a := rand.Uint64() >> (rand.Uint32() & 63)
		for _, b := range []uint64{a, a + rand.Uint64N(1e8), a - rand.Uint64N(1e8), rand.Uint64()} {
			want := fmt.Sprintf("x%d,%d", a, b)
			if got := string(AppendTimes([]byte("x"), a, ",", b)); got != want {
				t.Fatalf("AppendTimes = %s, want %s", got, want)
			}
		}
	}
	for range 200_000 {
		coef, scale := rand.Int64N(1e18)>>(rand.Uint32()&63), rand.IntN(19)
		d, err := NewDecimal(coef, scale)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%0*d", scale+1, coef)
		if n := len(want) - scale; scale > 0 {
			want = want[:n] + "." + want[n:]
		}
		if got := d.String(); got != want {
			t.Fatalf("%d * 10^-%d = %s, want %s", coef, scale, got, want)
		}
	}
}
