package codec

import (
	"errors"
	"fmt"
)

// Bounds of a [Decimal]. Eighteen digits are what an int64 holds whatever the
// digits are, and what no venue we know exceeds.
const (
	DecimalDigitsMax = 18
	DecimalScaleMax  = 18
)

const decimalCoefMax = 999_999_999_999_999_999

// decimalTextMax bounds the text of a number, so that a million zeros cost
// nothing: 18 digits, 18 zeros, a sign, a point, an exponent, and as much again.
const decimalTextMax = 96

var (
	// ErrSyntax marks text that is no decimal number.
	ErrSyntax = errors.New("not a decimal number")
	// ErrDigits marks a number of more than [DecimalDigitsMax] significant digits.
	ErrDigits = errors.New("more than 18 significant digits")
	// ErrScale marks a number of more than [DecimalScaleMax] digits behind the point.
	ErrScale = errors.New("more than 18 digits behind the point")
)

// Decimal is a price or a size exactly as the venue printed it: coefficient
// times ten to the minus scale, trailing zeros kept. The zero Decimal is
// absent, which is not the number zero. Decimals compare equal with == only if
// they were printed alike; [Decimal.Cmp] compares their values.
type Decimal struct {
	coef  int64
	scale uint8 // one more than the scale; 0: absent
}

// NewDecimal returns coef * 10^-scale.
func NewDecimal(coef int64, scale int) (Decimal, error) {
	if scale < 0 || scale > DecimalScaleMax {
		return Decimal{}, ErrScale
	}
	if coef > decimalCoefMax || coef < -decimalCoefMax {
		return Decimal{}, ErrDigits
	}
	return Decimal{coef, uint8(scale) + 1}, nil
}

// MustDecimal parses s and panics if it is no decimal; for tests and tables.
func MustDecimal(s string) Decimal {
	d, err := ParseDecimal([]byte(s))
	if err != nil {
		panic(fmt.Sprintf("codec.MustDecimal(%q): %v", s, err))
	}
	return d
}

// ParseDecimal reads the plain ("-12.340") and the exponent form ("1.2e-7") of
// a number. Digits are never rounded: what does not fit is an error.
func ParseDecimal(b []byte) (Decimal, error) {
	if len(b) > decimalTextMax {
		return Decimal{}, ErrDigits
	}
	i, neg := 0, false
	if i < len(b) && (b[i] == '-' || b[i] == '+') {
		neg = b[i] == '-'
		i++
	}
	var coef uint64
	digits, scale, seen, point := 0, 0, false, false
	for ; i < len(b); i++ {
		c := b[i]
		if c == '.' {
			if point {
				return Decimal{}, ErrSyntax
			}
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		seen = true
		if point {
			scale++
		}
		if digits > 0 || c != '0' {
			if digits++; digits > DecimalDigitsMax {
				return Decimal{}, ErrDigits
			}
			coef = coef*10 + uint64(c-'0')
		}
	}
	if !seen {
		return Decimal{}, ErrSyntax
	}
	if i < len(b) {
		if b[i] != 'e' && b[i] != 'E' {
			return Decimal{}, ErrSyntax
		}
		exp, ok := parseExponent(b[i+1:])
		if !ok {
			return Decimal{}, ErrSyntax
		}
		scale -= exp
		if coef == 0 && scale < 0 {
			scale = 0
		}
		for ; scale < 0; scale++ {
			if digits++; digits > DecimalDigitsMax {
				return Decimal{}, ErrDigits
			}
			coef *= 10
		}
	}
	if scale > DecimalScaleMax {
		return Decimal{}, ErrScale
	}
	d := Decimal{int64(coef), uint8(scale) + 1}
	if neg {
		d.coef = -d.coef
	}
	return d, nil
}

func parseExponent(b []byte) (exp int, ok bool) {
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 4 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		exp = exp*10 + int(c-'0')
	}
	if neg {
		exp = -exp
	}
	return exp, true
}

// IsSet tells a number from the absence of one.
func (d Decimal) IsSet() bool { return d.scale != 0 }

// Coef is the coefficient; 0 if d is absent.
func (d Decimal) Coef() int64 { return d.coef }

// Scale is how many digits stand behind the point; 0 if d is absent.
func (d Decimal) Scale() int {
	if d.scale == 0 {
		return 0
	}
	return int(d.scale) - 1
}

// Sign is -1, 0 or 1; 0 if d is absent.
func (d Decimal) Sign() int {
	switch {
	case d.coef < 0:
		return -1
	case d.coef > 0:
		return 1
	}
	return 0
}

// Cmp compares the values of two numbers; an absent one is below all others.
func (d Decimal) Cmp(e Decimal) int {
	switch {
	case d.scale == e.scale:
		return cmpInt(d.coef, e.coef)
	case d.scale == 0:
		return -1
	case e.scale == 0:
		return 1
	}
	return TotalOf(d).Cmp(TotalOf(e))
}

func cmpInt(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// AppendText appends the plain form of d, nothing if d is absent.
func (d Decimal) AppendText(dst []byte) []byte {
	if d.scale == 0 {
		return dst
	}
	u := uint64(d.coef)
	if d.coef < 0 {
		dst = append(dst, '-')
		u = -u
	}
	return appendFixed(dst, u, d.scale-1)
}

// appendPoint appends digits with the point in its place.
func appendPoint(dst, digits []byte, scale int) []byte {
	if scale == 0 {
		return append(dst, digits...)
	}
	if n := len(digits) - scale; n > 0 {
		dst = append(dst, digits[:n]...)
		dst = append(dst, '.')
		return append(dst, digits[n:]...)
	}
	dst = append(dst, '0', '.')
	for range scale - len(digits) {
		dst = append(dst, '0')
	}
	return append(dst, digits...)
}

// String is the plain form, "" if d is absent.
func (d Decimal) String() string { return string(d.AppendText(nil)) }
