package venue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Bounds of a venue message. The largest that we know of are order book
// snapshots of some hundreds of KB, four levels deep.
const (
	messageBytesMax = 1 << 20
	depthMax        = 16
)

var (
	errSyntax = errors.New("not JSON")
	errDepth  = fmt.Errorf("nested more than %d deep", depthMax)
	errLength = fmt.Errorf("longer than %d bytes", messageBytesMax)
)

// scanner pulls values out of a JSON text without copying. It is strict about
// structure and numbers; of strings that nobody asked for it checks only where
// they end. It never panics and goes no deeper than depthMax.
type scanner struct {
	b  []byte
	at int
}

// value is one JSON value as it stands in the message.
type value struct {
	kind byte   // '"' string, '0' number, 't' true, 'f' false, 'n' null, '{', '['; 0: no value
	raw  []byte // of a string: what it says, without quotes and escapes
}

// fault says that the text is no JSON, and where.
func (s *scanner) fault() error {
	return fmt.Errorf("%w: at byte %d of %d", errSyntax, s.at, len(s.b))
}

// next is the next byte that is no space, 0 at the end.
func (s *scanner) next() byte {
	if s.at < len(s.b) && s.b[s.at] > ' ' {
		return s.b[s.at]
	}
	return s.space()
}

func (s *scanner) space() byte {
	for s.at < len(s.b) {
		switch c := s.b[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.next() != c {
		return s.fault()
	}
	s.at++
	return nil
}

// text takes a string and returns it between its quotes, escapes and all.
func (s *scanner) text() ([]byte, error) {
	if err := s.expect('"'); err != nil {
		return nil, err
	}
	from := s.at
	if at := from + 1; at < len(s.b) && s.b[at] == '"' && s.b[from] != '\\' && s.b[from] != '"' {
		s.at = at + 1 // most keys have one letter
		return s.b[from:at], nil
	}
	for at := from; ; {
		i := bytes.IndexByte(s.b[at:], '"')
		if i < 0 {
			return nil, s.fault()
		}
		at += i
		slashes := 0
		for at-slashes > from && s.b[at-slashes-1] == '\\' {
			slashes++
		}
		at++
		if slashes%2 == 0 {
			s.at = at
			return s.b[from : at-1], nil
		}
	}
}

// plain is what a string says. Only one with escapes is copied: no venue that
// we know writes any in what we read.
func (s *scanner) plain() ([]byte, error) {
	raw, err := s.text()
	if err != nil || bytes.IndexByte(raw, '\\') < 0 {
		return raw, err
	}
	var said string
	if json.Unmarshal(s.b[s.at-len(raw)-2:s.at], &said) != nil {
		return nil, s.fault()
	}
	return []byte(said), nil
}

// digits passes over at least one digit.
func (s *scanner) digits() bool {
	from := s.at
	for s.at < len(s.b) && s.b[s.at]-'0' <= 9 {
		s.at++
	}
	return s.at > from
}

// number takes a number.
func (s *scanner) number() ([]byte, error) {
	from := s.at
	if s.at < len(s.b) && s.b[s.at] == '-' {
		s.at++
	}
	whole := s.at
	if !s.digits() || s.b[whole] == '0' && s.at-whole > 1 {
		return nil, s.fault()
	}
	if s.at < len(s.b) && s.b[s.at] == '.' {
		if s.at++; !s.digits() {
			return nil, s.fault()
		}
	}
	if s.at < len(s.b) && (s.b[s.at] == 'e' || s.b[s.at] == 'E') {
		if s.at++; s.at < len(s.b) && (s.b[s.at] == '+' || s.b[s.at] == '-') {
			s.at++
		}
		if !s.digits() {
			return nil, s.fault()
		}
	}
	return s.b[from:s.at], nil
}

// value takes any value. depth is how many objects and arrays may still open.
func (s *scanner) value(depth int) (value, error) {
	c := s.next()
	word := ""
	switch c {
	case '"':
		v, err := s.plain()
		return value{'"', v}, err
	case '{', '[':
		from := s.at
		err := s.skip(depth)
		return value{c, s.b[from:s.at]}, err
	case 't':
		word = "true"
	case 'f':
		word = "false"
	case 'n':
		word = "null"
	default:
		v, err := s.number()
		return value{'0', v}, err
	}
	if !bytes.HasPrefix(s.b[s.at:], []byte(word)) {
		return value{}, s.fault()
	}
	s.at += len(word)
	return value{c, s.b[s.at-len(word) : s.at]}, nil
}

// skip passes over any value. depth is as for value.
func (s *scanner) skip(depth int) error {
	open := s.next()
	switch open {
	case '{', '[':
	case '"':
		_, err := s.text()
		return err
	default:
		_, err := s.value(depth)
		return err
	}
	more, err := s.open(depth, open)
	for more && err == nil {
		if open == '{' {
			if err = s.key(); err != nil {
				return err
			}
		}
		if err = s.skip(depth - 1); err == nil {
			more, err = s.comma(open)
		}
	}
	return err
}

// object takes an object; field takes the value of each key. Of a key that
// stands twice field sees both, so that the last one counts.
func (s *scanner) object(depth int, field func(key []byte) error) error {
	more, err := s.open(depth, '{')
	for more && err == nil {
		var key []byte
		if key, err = s.plain(); err != nil {
			return err
		}
		if err = s.expect(':'); err != nil {
			return err
		}
		if err = field(key); err == nil {
			more, err = s.comma('{')
		}
	}
	return err
}

// key passes over a key and its colon.
func (s *scanner) key() error {
	if _, err := s.text(); err != nil {
		return err
	}
	return s.expect(':')
}

// open goes into an object or an array; more is false if nothing is in it.
func (s *scanner) open(depth int, bracket byte) (more bool, err error) {
	if depth == 0 {
		return false, errDepth
	}
	if err := s.expect(bracket); err != nil {
		return false, err
	}
	if s.next() != bracket+2 { // in ASCII they close so
		return true, nil
	}
	s.at++
	return false, nil
}

// comma goes on to the next item; more is false if there is none.
func (s *scanner) comma(bracket byte) (more bool, err error) {
	switch s.next() {
	case ',':
		s.at++
		return true, nil
	case bracket + 2:
		s.at++
		return false, nil
	}
	return false, s.fault()
}

// message takes a message that is an object, and nothing else.
func (s *scanner) message(field func(key []byte) error) error {
	if len(s.b) > messageBytesMax {
		return errLength
	}
	if err := s.object(depthMax, field); err != nil {
		return err
	}
	return s.end()
}

// end finds that nothing is left.
func (s *scanner) end() error {
	if s.next() != 0 || s.at < len(s.b) {
		return s.fault()
	}
	return nil
}
