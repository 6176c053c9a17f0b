package venue

import (
	"bytes"
	"errors"
)

// Bounds of a venue message. The largest that we know of are order book
// snapshots of some hundreds of KB.
const (
	messageBytesMax = 1 << 20
	depthMax        = 16
)

// errSyntax marks bytes that are no JSON.
var errSyntax = errors.New("not JSON")

// scanner pulls values out of a JSON text without copying. It is strict about
// structure, which is what finds the fields, and leaves alone what it skips
// over: the text of strings and numbers that nobody asked for.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// next is the next byte that is no space, 0 at the end.
func (s *scanner) next() byte {
	s.space()
	if s.at >= len(s.b) {
		return 0
	}
	return s.b[s.at]
}

func (s *scanner) expect(c byte) error {
	if s.next() != c {
		return errSyntax
	}
	s.at++
	return nil
}

// text takes a string and returns what stands between its quotes, escapes and
// all: no field that we read has any.
func (s *scanner) text() ([]byte, error) {
	if err := s.expect('"'); err != nil {
		return nil, err
	}
	from := s.at
	for s.at < len(s.b) {
		i := bytes.IndexByte(s.b[s.at:], '"')
		if i < 0 {
			return nil, errSyntax
		}
		end := s.at + i
		slashes := 0
		for end-slashes > from && s.b[end-slashes-1] == '\\' {
			slashes++
		}
		s.at = end + 1
		if slashes%2 == 0 {
			return s.b[from:end], nil
		}
	}
	return nil, errSyntax
}

// bare takes a number, true, false or null.
func (s *scanner) bare() ([]byte, error) {
	from := s.at
loop:
	for s.at < len(s.b) {
		switch c := s.b[s.at]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c == '-', c == '+', c == '.', c == 'E':
			s.at++
		default:
			break loop
		}
	}
	v := s.b[from:s.at]
	if len(v) == 0 {
		return nil, errSyntax
	}
	if c := v[0]; c != '-' && (c < '0' || c > '9') {
		switch string(v) {
		case "true", "false", "null":
		default:
			return nil, errSyntax
		}
	}
	return v, nil
}

// value is one JSON value as it stands in the message.
type value struct {
	kind byte   // '"' string, '0' number, 't' true, 'f' false, 'n' null, '{', '['
	raw  []byte // of a string: between the quotes
}

func (s *scanner) value(depth int) (value, error) {
	switch c := s.next(); c {
	case '"':
		v, err := s.text()
		return value{'"', v}, err
	case '{', '[':
		from := s.at
		if err := s.skip(depth); err != nil {
			return value{}, err
		}
		return value{c, s.b[from:s.at]}, nil
	default:
		v, err := s.bare()
		if err != nil {
			return value{}, err
		}
		switch v[0] {
		case 't', 'f', 'n':
			return value{v[0], v}, nil
		}
		return value{'0', v}, nil
	}
}

// skip passes over an object or an array.
func (s *scanner) skip(depth int) error {
	if depth == 0 {
		return errors.New("nested too deep")
	}
	open := s.next()
	s.at++
	end := byte(']')
	if open == '{' {
		end = '}'
	}
	for first := true; ; first = false {
		if s.next() == end {
			s.at++
			return nil
		}
		if !first {
			if err := s.expect(','); err != nil {
				return err
			}
		}
		if open == '{' {
			s.space()
			if _, err := s.text(); err != nil {
				return err
			}
			if err := s.expect(':'); err != nil {
				return err
			}
		}
		if _, err := s.value(depth - 1); err != nil {
			return err
		}
	}
}

// fields calls f for each field of the JSON object that b is, all of b. Of a
// key that stands twice, f sees both.
func fields(b []byte, f func(key []byte, v value)) error {
	if len(b) > messageBytesMax {
		return errors.New("longer than a venue message can be (1 MiB)")
	}
	s := scanner{b: b}
	if err := s.expect('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		if s.next() == '}' {
			s.at++
			break
		}
		if !first {
			if err := s.expect(','); err != nil {
				return err
			}
		}
		s.space()
		key, err := s.text()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		v, err := s.value(depthMax)
		if err != nil {
			return err
		}
		f(key, v)
	}
	if s.next() != 0 {
		return errSyntax
	}
	return nil
}
