package venue

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// read reads an object and gives its fields as JSON again.
func read(b []byte) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	s := scanner{b: b}
	err := s.message(func(key []byte) error {
		s.next()
		from := s.at
		_, err := s.value(depthMax - 1)
		all[string(key)] = s.b[from:s.at]
		return err
	})
	return all, err
}

func TestScanner(t *testing.T) {
	for name, tt := range map[string]struct {
		in      string
		wantErr error
	}{
		"empty object":           {in: `{}`},
		"spaces everywhere":      {in: " {\t\"a\" :\r\n [ 1 , 2 ] } \n"},
		"escaped quote":          {in: `{"a":"\"","b":"\\"}`},
		"escaped slashes":        {in: `{"a":"\\\\\\\""}`},
		"as deep as allowed":     {in: `{"a":` + strings.Repeat("[", depthMax-1) + strings.Repeat("]", depthMax-1) + `}`},
		"too deep":               {in: `{"a":` + strings.Repeat("[", depthMax) + strings.Repeat("]", depthMax) + `}`, wantErr: errDepth},
		"a bomb of brackets":     {in: `{"a":` + strings.Repeat("[", messageBytesMax/2), wantErr: errDepth},
		"too long":               {in: `{"a":"` + strings.Repeat("x", messageBytesMax) + `"}`, wantErr: errLength},
		"nothing":                {in: ``, wantErr: errSyntax},
		"only spaces":            {in: `   `, wantErr: errSyntax},
		"an array":               {in: `[]`, wantErr: errSyntax},
		"no end":                 {in: `{"a":1`, wantErr: errSyntax},
		"comma at the end":       {in: `{"a":1,}`, wantErr: errSyntax},
		"comma at the beginning": {in: `{,"a":1}`, wantErr: errSyntax},
		"no colon":               {in: `{"a" 1}`, wantErr: errSyntax},
		"no key":                 {in: `{1:1}`, wantErr: errSyntax},
		"wrong bracket":          {in: `{"a":[1}`, wantErr: errSyntax},
		"more behind":            {in: `{} {}`, wantErr: errSyntax},
		"zero byte behind":       {in: "{}\x00", wantErr: errSyntax},
		"zero byte within":       {in: "{\"a\":\x001}", wantErr: errSyntax},
		"half a word":            {in: `{"a":tru}`, wantErr: errSyntax},
		"word too long":          {in: `{"a":nullx}`, wantErr: errSyntax},
		"NaN":                    {in: `{"a":NaN}`, wantErr: errSyntax},
		"plus":                   {in: `{"a":+1}`, wantErr: errSyntax},
		"leading zero":           {in: `{"a":01}`, wantErr: errSyntax},
		"point without digits":   {in: `{"a":1.}`, wantErr: errSyntax},
		"only a point":           {in: `{"a":.5}`, wantErr: errSyntax},
		"exponent without":       {in: `{"a":1e}`, wantErr: errSyntax},
		"two points":             {in: `{"a":1.2.3}`, wantErr: errSyntax},
		"only a minus":           {in: `{"a":-}`, wantErr: errSyntax},
		"unknown escape":         {in: `{"a":"\x"}`, wantErr: errSyntax},
		"string without end":     {in: `{"a":"\"}`, wantErr: errSyntax},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read([]byte(tt.in))
			if tt.wantErr == nil && err != nil || !errors.Is(err, tt.wantErr) {
				t.Errorf("error %v, want %v", err, tt.wantErr)
			}
		})
	}
}

// FuzzScanner: what encoding/json takes, the scanner takes and reads alike,
// within its bounds; what the scanner takes may be laxer within strings only.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"b":[true,{"c":null}],"\u0061":"\\\""}`, `{"a":-0.5e+7}`, "{\"a\":\"\x01\"}", `{"a":1}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := read(b)
		if errors.Is(err, errDepth) || errors.Is(err, errLength) || !utf8.Valid(b) {
			return // encoding/json mends what is no UTF-8, we leave it
		}
		var want map[string]json.RawMessage
		if wantErr := json.Unmarshal(b, &want); wantErr != nil || want == nil {
			if err == nil && !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r == '\\' }) {
				t.Errorf("the scanner takes %q, encoding/json does not: %v", b, wantErr)
			}
			return
		}
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q: %d fields and error %v, want %d", b, len(got), err, len(want))
		}
		for key, v := range want {
			if !bytes.Equal(got[key], v) {
				t.Errorf("%q: field %q is %q, want %q", b, key, got[key], v)
			}
		}
	})
}

// FuzzTime: a time that we take is the one that package time reads.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"2021-04-17T16:43:37.089723Z", "2024-02-29T23:59:59Z", "2023-02-29T00:00:00Z", "2021-04-31T00:00:00.1Z",
		"2021-04-17T24:00:00Z", "2021-04-17T16:43:60Z", "2021-04-17T16:43:37.Z", "2021-04-17T16:43:37.1234567890Z", "2021-4-17T16:43:37Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := value{'"', []byte(s)}.rfc3339()
		want, wantErr := time.Parse(time.RFC3339Nano, s)
		switch {
		case err == nil && (wantErr != nil || got != want.UnixNano()):
			t.Errorf("%q is %d, want %v, %v", s, got, want, wantErr)
		case err != nil && wantErr == nil && len(s) <= 30 && strings.HasPrefix(s, want.Format("2006-01-02T15:04:05")) &&
			strings.HasSuffix(s, "Z") && !strings.Contains(s, ",") && want.Year() >= 1973 && want.Year() <= 2255:
			t.Errorf("%q is refused: %v", s, err)
		}
	})
}

func TestUTCDay(t *testing.T) {
	for name, tt := range map[string]struct {
		at   int64
		want int32
	}{
		"the beginning":       {at: 0, want: 0},
		"the last nanosecond": {at: 24*3600*1e9 - 1, want: 0},
		"the next day":        {at: 24 * 3600 * 1e9, want: 1},
		"before 1970":         {at: -1, want: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := utcDay(tt.at); got != tt.want {
				t.Errorf("utcDay(%d) = %d, want %d", tt.at, got, tt.want)
			}
		})
	}
}
