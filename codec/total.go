package codec

import "math/bits"

// Total is a running sum of sizes or of prices times sizes: a signed 128-bit
// coefficient without trailing zeros behind the point. The zero Total is 0. A
// sum that no longer fits is lost: it stays lost, says so, and never wraps.
type Total struct {
	hi, lo uint64 // magnitude, below 1<<127
	scale  uint8  // 0 to totalScaleMax
	neg    bool
	lost   bool
}

// totalScaleMax is the scale of a product of two decimals.
const totalScaleMax = 2 * DecimalScaleMax

// LostTotal is the total that no longer fits 128 bits.
func LostTotal() Total { return Total{lost: true} }

// TotalOf is d as a total; 0 if d is absent.
func TotalOf(d Decimal) Total {
	u := uint64(d.coef)
	if d.coef < 0 {
		u = -u
	}
	return normal(0, u, uint8(d.Scale()), d.coef < 0)
}

// Mul is a times b, exactly: it always fits. 0 if one of them is absent.
func Mul(a, b Decimal) Total {
	ua, ub := uint64(a.coef), uint64(b.coef)
	if a.coef < 0 {
		ua = -ua
	}
	if b.coef < 0 {
		ub = -ub
	}
	hi, lo := bits.Mul64(ua, ub)
	return normal(hi, lo, uint8(a.Scale()+b.Scale()), (a.coef < 0) != (b.coef < 0))
}

// normal drops the zeros behind the point.
func normal(hi, lo uint64, scale uint8, neg bool) Total {
	if hi|lo == 0 {
		return Total{}
	}
	for scale > 0 && hi == 0 { // the way of nearly all: no 128-bit division
		q := lo / 10
		if q*10 != lo {
			break
		}
		lo, scale = q, scale-1
	}
	for scale > 0 && hi != 0 {
		qhi, qlo, r := div10(hi, lo)
		if r != 0 {
			break
		}
		if hi, lo, scale = qhi, qlo, scale-1; hi == 0 {
			return normal(0, lo, scale, neg)
		}
	}
	return Total{hi: hi, lo: lo, scale: scale, neg: neg}
}

func div10(hi, lo uint64) (qhi, qlo, rem uint64) {
	qhi, rem = hi/10, hi%10
	qlo, rem = bits.Div64(rem, lo, 10)
	return qhi, qlo, rem
}

// wide is a magnitude of 256 bits: room to align any two totals.
type wide [4]uint64 // least significant first

func (t Total) wide(scale uint8) wide {
	w := wide{t.lo, t.hi}
	for range scale - t.scale {
		var carry uint64
		for i := range w {
			hi, lo := bits.Mul64(w[i], 10)
			var c uint64
			w[i], c = bits.Add64(lo, carry, 0)
			carry = hi + c
		}
	}
	return w
}

func (w wide) cmp(v wide) int {
	for i := len(w) - 1; i >= 0; i-- {
		if w[i] != v[i] {
			if w[i] < v[i] {
				return -1
			}
			return 1
		}
	}
	return 0
}

func (w wide) add(v wide) (sum wide) {
	var c uint64
	for i := range w {
		sum[i], c = bits.Add64(w[i], v[i], c)
	}
	return sum
}

func (w wide) sub(v wide) (diff wide) {
	var b uint64
	for i := range w {
		diff[i], b = bits.Sub64(w[i], v[i], b)
	}
	return diff
}

// pow10 are the powers that a uint64 holds.
var pow10 = func() (p [20]uint64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

// times is t's magnitude times 10^n, if it fits 128 bits.
func (t Total) times(n uint8) (hi, lo uint64, ok bool) {
	if int(n) >= len(pow10) {
		return 0, 0, false
	}
	p := pow10[n]
	over, hi := bits.Mul64(t.hi, p)
	carry, lo := bits.Mul64(t.lo, p)
	hi, c := bits.Add64(hi, carry, 0)
	return hi, lo, over == 0 && c == 0
}

// Add is t plus u.
func (t Total) Add(u Total) Total {
	if t.lost || u.lost {
		return LostTotal()
	}
	if t.neg == u.neg { // a running sum and a size of another scale
		a, b := t, u
		if a.scale < b.scale {
			a, b = b, a
		}
		if bhi, blo, ok := b.times(a.scale - b.scale); ok {
			lo, c := bits.Add64(a.lo, blo, 0)
			hi, c := bits.Add64(a.hi, bhi, c)
			if c == 0 && hi>>63 == 0 {
				return normal(hi, lo, a.scale, t.neg)
			}
		}
	}
	scale := max(t.scale, u.scale)
	a, b := t.wide(scale), u.wide(scale)
	var sum wide
	neg := t.neg
	switch {
	case t.neg == u.neg:
		sum = a.add(b)
	case a.cmp(b) >= 0:
		sum = a.sub(b)
	default:
		sum, neg = b.sub(a), u.neg
	}
	for scale > 0 { // zeros may go before it has to fit
		q, r := sum.div10()
		if r != 0 {
			break
		}
		sum, scale = q, scale-1
	}
	if sum[3]|sum[2] != 0 || sum[1]>>63 != 0 {
		return LostTotal()
	}
	return normal(sum[1], sum[0], scale, neg)
}

func (w wide) div10() (q wide, rem uint64) {
	for i := len(w) - 1; i >= 0; i-- {
		q[i], rem = bits.Div64(rem, w[i], 10)
	}
	return q, rem
}

// Sub is t minus u.
func (t Total) Sub(u Total) Total { return t.Add(u.Neg()) }

// Neg is minus t.
func (t Total) Neg() Total {
	if t.hi|t.lo != 0 {
		t.neg = !t.neg
	}
	return t
}

// AddDecimal is t plus d; t if d is absent.
func (t Total) AddDecimal(d Decimal) Total { return t.Add(TotalOf(d)) }

// Lost tells that the sum once did not fit 128 bits; t then has no value.
func (t Total) Lost() bool { return t.lost }

// Scale is how many digits stand behind the point.
func (t Total) Scale() int { return int(t.scale) }

// Sign is -1, 0 or 1; 0 if t is lost.
func (t Total) Sign() int {
	switch {
	case t.hi|t.lo == 0:
		return 0
	case t.neg:
		return -1
	}
	return 1
}

// Coef64 is the coefficient if it fits an int64.
func (t Total) Coef64() (coef int64, ok bool) {
	if t.lost || t.hi != 0 || t.lo>>63 != 0 {
		return 0, false
	}
	if t.neg {
		return -int64(t.lo), true
	}
	return int64(t.lo), true
}

// Cmp compares two totals; a lost one is below all others.
func (t Total) Cmp(u Total) int {
	switch {
	case t.lost || u.lost:
		switch {
		case t.lost && u.lost:
			return 0
		case t.lost:
			return -1
		}
		return 1
	case t.Sign() != u.Sign():
		return cmpInt(int64(t.Sign()), int64(u.Sign()))
	}
	scale := max(t.scale, u.scale)
	c := t.wide(scale).cmp(u.wide(scale))
	if t.neg {
		return -c
	}
	return c
}

// NewTotal returns coef * 10^-scale.
func NewTotal(coef int64, scale int) (Total, error) {
	if uint(scale) > totalScaleMax {
		return Total{}, ErrScale
	}
	if coef > 0 && (scale == 0 || coef%10 != 0) { // as a total is written
		return Total{lo: uint64(coef), scale: uint8(scale)}, nil
	}
	u := uint64(coef)
	if coef < 0 {
		u = -u
	}
	if u>>63 != 0 {
		return normal(0, u, uint8(scale), true), nil
	}
	return normal(0, u, uint8(scale), coef < 0), nil
}

// ParseTotal reads the plain form of a total.
func ParseTotal(b []byte) (Total, error) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	var hi, lo uint64
	scale, seen, point := 0, false, false
	for _, c := range b {
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			return Total{}, ErrSyntax
		}
		seen = true
		if point {
			if scale++; scale > totalScaleMax {
				return Total{}, ErrScale
			}
		}
		over, h := bits.Mul64(hi, 10)
		carry, l := bits.Mul64(lo, 10)
		l, c1 := bits.Add64(l, uint64(c-'0'), 0)
		h, c2 := bits.Add64(h, carry, c1)
		if over != 0 || c2 != 0 || h>>63 != 0 {
			return Total{}, ErrDigits
		}
		hi, lo = h, l
	}
	if !seen {
		return Total{}, ErrSyntax
	}
	return normal(hi, lo, uint8(scale), neg), nil
}

// AppendText appends the plain form of t, nothing if t is lost.
func (t Total) AppendText(dst []byte) []byte {
	if t.lost {
		return dst
	}
	if t.neg {
		dst = append(dst, '-')
	}
	if t.hi == 0 && t.scale <= DecimalScaleMax {
		return appendFixed(dst, t.lo, t.scale)
	}
	var buf [NumberRoom]byte
	return appendPoint(dst, t.appendDigits(buf[:0]), int(t.scale))
}

// AppendCoef appends the digits of the coefficient with its sign, nothing if t
// is lost.
func (t Total) AppendCoef(dst []byte) []byte {
	if t.lost {
		return dst
	}
	if t.neg {
		dst = append(dst, '-')
	}
	return t.appendDigits(dst)
}

func (t Total) appendDigits(dst []byte) []byte {
	if t.hi == 0 {
		return AppendUint(dst, t.lo)
	}
	const unit = 1e19 // above any hi, which is below 1<<63: the quotient fits
	q, r := bits.Div64(t.hi, t.lo, unit)
	dst = AppendUint(dst, q)
	var buf [room]byte
	low := AppendUint(buf[:0], r)
	for range 19 - len(low) {
		dst = append(dst, '0')
	}
	return append(dst, low...)
}

// String is the plain form, "" if t is lost.
func (t Total) String() string { return string(t.AppendText(nil)) }
