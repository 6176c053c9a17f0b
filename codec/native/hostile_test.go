package native_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"tickgate/codec"
	"tickgate/codec/native"
)

// refusal is a frame that must be refused, and how.
type refusal struct {
	frame string
	code  string
	where string
}

var refusedJSON = map[string]refusal{
	"empty":                  {``, native.CodeBadFrame, "byte 0"},
	"no map":                 {`["subscribe"]`, native.CodeBadFrame, "byte 0"},
	"no op":                  {`{"ref":1}`, native.CodeMissingKey, "op"},
	"op null":                {`{"op":null}`, native.CodeMissingKey, "op"},
	"unknown op":             {`{"op":"subscibe"}`, native.CodeUnknownOp, "op"},
	"ends early":             {`{"op":"ping"`, native.CodeBadFrame, "byte 12"},
	"trailing bytes":         {`{"op":"ping"} {}`, native.CodeBadFrame, "byte 14"},
	"trailing comma":         {`{"op":"ping",}`, native.CodeBadFrame, "byte 13"},
	"comma before all":       {`{,"op":"ping"}`, native.CodeBadFrame, "byte 1"},
	"no comma":               {`{"op":"ping""ref":1}`, native.CodeBadFrame, "byte 12"},
	"no colon":               {`{"op" "ping"}`, native.CodeBadFrame, "byte 6"},
	"key no string":          {`{op:"ping"}`, native.CodeBadFrame, "byte 1"},
	"duplicate key":          {`{"op":"ping","op":"ping"}`, native.CodeDuplicateKey, "op"},
	"duplicate by escape":    {`{"op":"ping","\u006fp":"ping"}`, native.CodeDuplicateKey, "op"},
	"duplicate after null":   {`{"op":"ping","ref":1,"ref":null}`, native.CodeDuplicateKey, "ref"},
	"duplicate unknown key":  {`{"op":"ping","x":1,"x":2}`, native.CodeDuplicateKey, "byte 23"},
	"ref negative":           {`{"op":"ping","ref":-1}`, native.CodeBadValue, "ref"},
	"ref float":              {`{"op":"ping","ref":1.0}`, native.CodeBadValue, "ref"},
	"ref exponent":           {`{"op":"ping","ref":1e3}`, native.CodeBadValue, "ref"},
	"ref leading zero":       {`{"op":"ping","ref":01}`, native.CodeBadFrame, "ref"},
	"ref beyond 2^64":        {`{"op":"ping","ref":18446744073709551616}`, native.CodeBadValue, "ref"},
	"ref string beyond 2^64": {`{"op":"ping","ref":"18446744073709551616"}`, native.CodeBadValue, "ref"},
	"ref empty string":       {`{"op":"ping","ref":""}`, native.CodeBadValue, "ref"},
	"ref object":             {`{"op":"ping","ref":{}}`, native.CodeBadFrame, "ref"},
	"key of another op":      {`{"op":"ping","symbols":["A"]}`, native.CodeBadValue, "symbols"},
	"no channel":             {`{"op":"subscribe","symbols":["A"]}`, native.CodeMissingKey, "channel"},
	"no symbols":             {`{"op":"subscribe","channel":"ticker"}`, native.CodeMissingKey, "symbols"},
	"channel unknown":        {`{"op":"subscribe","channel":"tape","symbols":["A"]}`, native.CodeBadValue, "channel"},
	"symbols no list":        {`{"op":"subscribe","channel":"ticker","symbols":"A"}`, native.CodeBadFrame, "symbols"},
	"symbol empty":           {`{"op":"subscribe","channel":"ticker","symbols":["A",""]}`, native.CodeBadSymbol, "symbols[1]"},
	"symbol lower case":      {`{"op":"subscribe","channel":"ticker","symbols":["btc"]}`, native.CodeBadSymbol, "symbols[0]"},
	"symbol too long":        {`{"op":"subscribe","channel":"ticker","symbols":["` + strings.Repeat("A", 34) + `"]}`, native.CodeBadSymbol, "symbols[0]"},
	"name of 33":             {`{"op":"subscribe","channel":"ticker","symbols":["` + strings.Repeat("A", 33) + `"]}`, native.CodeBadSymbol, "symbols[0]"},
	"symbol no UTF-8":        {"{\"op\":\"subscribe\",\"channel\":\"ticker\",\"symbols\":[\"A\xff\"]}", native.CodeBadSymbol, "symbols[0]"},
	"star inside":            {`{"op":"subscribe","channel":"ticker","symbols":["B*C"]}`, native.CodeBadSymbol, "symbols[0]"},
	"two stars":              {`{"op":"subscribe","channel":"ticker","symbols":["**"]}`, native.CodeBadSymbol, "symbols[0]"},
	"symbol number":          {`{"op":"subscribe","channel":"ticker","symbols":["A","B",3]}`, native.CodeBadFrame, "symbols[2]"},
	"from without seq":       {`{"op":"subscribe","channel":"ticker","symbols":[{"symbol":"A","epoch":1}]}`, native.CodeMissingKey, "symbols[0]"},
	"from without symbol":    {`{"op":"subscribe","channel":"ticker","symbols":[{"seq":1,"epoch":1}]}`, native.CodeMissingKey, "symbols[0]"},
	"from twice":             {`{"op":"subscribe","channel":"ticker","symbols":[{"symbol":"A","symbol":"B"}]}`, native.CodeDuplicateKey, "symbols[0]"},
	"from with a pattern":    {`{"op":"subscribe","channel":"ticker","symbols":[{"symbol":"A*","epoch":1,"seq":1}]}`, native.CodeBadSymbol, "symbols[0]"},
	"from negative":          {`{"op":"subscribe","channel":"ticker","symbols":[["A",-1,1]]}`, native.CodeBadValue, "symbols[0]"},
	"from epoch beyond 2^63": {`{"op":"subscribe","channel":"ticker","symbols":[["A",9223372036854775808,1]]}`, native.CodeBadValue, "symbols[0]"},
	"from short":             {`{"op":"subscribe","channel":"ticker","symbols":[["A",1]]}`, native.CodeBadValue, "symbols[0]"},
	"from long":              {`{"op":"subscribe","channel":"ticker","symbols":[["A",1,2,3]]}`, native.CodeTooMany, "symbols[0]"},
	"every too long":         {`{"op":"subscribe","channel":"ticker","symbols":["A"],"every":3600001}`, native.CodeBadValue, "every"},
	"view unknown":           {`{"op":"subscribe","channel":"ticker","symbols":["A"],"view":["last","tape"]}`, native.CodeBadValue, "view[1]"},
	"filter number":          {`{"op":"subscribe","channel":"trades","symbols":["A"],"min_size":0.5}`, native.CodeBadFrame, "min_size"},
	"filter negative":        {`{"op":"subscribe","channel":"trades","symbols":["A"],"min_size":"-1"}`, native.CodeBadValue, "min_size"},
	"filter no number":       {`{"op":"subscribe","channel":"trades","symbols":["A"],"min_size":"NaN"}`, native.CodeBadValue, "min_size"},
	"more no boolean":        {`{"op":"set","channel":"trades","symbols":[],"more":1}`, native.CodeBadFrame, "more"},
	"ack without frame":      {`{"op":"ack"}`, native.CodeMissingKey, "frame"},
	"token empty":            {`{"op":"auth","token":""}`, native.CodeBadValue, "token"},
	"token no UTF-8":         {"{\"op\":\"auth\",\"token\":\"\xc3\"}", native.CodeBadValue, "token"},
	"token half a surrogate": {`{"op":"auth","token":"\ud800"}`, native.CodeBadFrame, "token"},
	"control in a string":    {"{\"op\":\"auth\",\"token\":\"a\nb\"}", native.CodeBadFrame, "token"},
	"small op, long frame":   {`{"op":"ping","ref":1` + strings.Repeat(" ", codec.SmallCommandBytesMax) + `}`, native.CodeTooBig, ""},
	"nine unknown keys":      {`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"op":"ping"}`, native.CodeTooMany, "byte 53"},
	"unknown is no value":    {`{"op":"ping","x":nul}`, native.CodeBadFrame, "byte 17"},
	"unknown has bad number": {`{"op":"ping","x":[1.]}`, native.CodeBadFrame, "byte 18"},
	"space behind a comma":   {`{"op":"subscribe","channel":"ticker","symbols":["A",` + strings.Repeat(" ", 17<<10) + `"B"]}`, native.CodeTooBig, "symbols[1]"},
	"space in an item":       {`{"op":"subscribe","channel":"ticker","symbols":[{"symbol":` + strings.Repeat("\n", 17<<10) + `"B"}]}`, native.CodeTooBig, "symbols[0]"},
	"escapes in symbols":     {`{"op":"subscribe","channel":"ticker","symbols":[` + strings.Repeat(`"\u0041",`, 9) + `"B"]}`, native.CodeTooBig, "symbols[8]"},
	"lists under unknown":    {`{"op":"ping","x":[` + strings.Repeat("[],", 200) + `1]}`, native.CodeTooBig, "byte 195"},
	"unknown nested deep":    {`{"op":"ping","x":` + strings.Repeat("[", 9), native.CodeBadFrame, "byte 25"},
}

var refusedMsgPack = map[string]refusal{
	"empty":                 {"", native.CodeBadFrame, "byte 0"},
	"no map":                {"\x91\xa4ping", native.CodeBadFrame, "byte 0"},
	"text instead":          {`{"op":"ping"}`, native.CodeBadFrame, "byte 0"},
	"ends early":            {"\x82\xa2op\xa4ping", native.CodeBadFrame, "byte 9"},
	"ends in a string":      {"\x81\xa2op\xa4pi", native.CodeBadFrame, "op"},
	"trailing bytes":        {"\x81\xa2op\xa4ping\xc0", native.CodeBadFrame, "byte 9"},
	"duplicate key":         {"\x82\xa2op\xa4ping\xa2op\xa4ping", native.CodeDuplicateKey, "op"},
	"duplicate unknown key": {"\x83\xa2op\xa4ping\xa1x\x01\xa1x\x01", native.CodeDuplicateKey, "byte 14"},
	"key no string":         {"\x81\x01\x01", native.CodeBadFrame, "byte 1"},
	"map of 2^32":           {"\xdf\xff\xff\xff\xff", native.CodeTooMany, "byte 5"},
	"map of 24, no bytes":   {"\xde\x00\x18", native.CodeBadFrame, "byte 3"},
	"list of 2^32":          {"\x83\xa2op\xa9subscribe\xa7channel\xa6ticker\xa7symbols\xdd\xff\xff\xff\xff", native.CodeTooMany, "symbols"},
	"list of 1000":          {"\x83\xa2op\xa9subscribe\xa7channel\xa6ticker\xa7symbols\xdc\x03\xe8\xa1A", native.CodeBadFrame, "symbols"},
	"string of 2^32":        {"\x81\xa2op\xdb\xff\xff\xff\xff", native.CodeBadValue, "op"},
	"ref float":             {"\x82\xa2op\xa4ping\xa3ref\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", native.CodeBadFrame, "ref"},
	"ref negative":          {"\x82\xa2op\xa4ping\xa3ref\xff", native.CodeBadValue, "ref"},
	"symbol binary":         {"\x83\xa2op\xa9subscribe\xa7channel\xa6ticker\xa7symbols\x91\xc4\x01A", native.CodeBadFrame, "symbols[0]"},
	"unknown is reserved":   {"\x82\xa2op\xa4ping\xa1x\xc1", native.CodeBadFrame, "byte 11"},
	"unknown bin of 2^32":   {"\x82\xa2op\xa4ping\xa1x\xc6\xff\xff\xff\xff", native.CodeBadFrame, "byte 16"},
	"unknown map of 2^32":   {"\x82\xa2op\xa4ping\xa1x\xdf\xff\xff\xff\xff", native.CodeTooMany, "byte 16"},
	"unknown nested deep":   {"\x82\xa2op\xa4ping\xa1x" + strings.Repeat("\x91", 9) + "\x01", native.CodeBadFrame, "byte 19"},
}

// TestRefused: what is wrong is refused, by a code that tells it and at its
// place.
func TestRefused(t *testing.T) {
	for s, table := range map[native.Spelling]map[string]refusal{native.JSON: refusedJSON, native.MsgPack: refusedMsgPack} {
		for name, tt := range table {
			t.Run(s.Subprotocol()+"/"+name, func(t *testing.T) {
				var c codec.Command
				err := s.DecodeCommand([]byte(tt.frame), &c)
				var no *codec.Error
				if !errors.As(err, &no) {
					t.Fatalf("DecodeCommand(%.200q) = %v %+v, want code %s", tt.frame, err, c, tt.code)
				}
				if no.Code != tt.code || no.Where != tt.where {
					t.Errorf("DecodeCommand(%.200q) = %+v, want code %s at %q", tt.frame, *no, tt.code, tt.where)
				}
			})
		}
	}
}

// TestLiberal: what people's libraries write is read.
func TestLiberal(t *testing.T) {
	want := codec.Command{
		Op: codec.OpSubscribe, Ref: 9, Channel: codec.ChannelTrades, Symbols: symbols(named("BTCUSDT"), from("A", 1, 2)),
		Every: 100 * time.Millisecond, View: codec.ViewLast,
	}
	for name, tt := range map[string]struct {
		s     native.Spelling
		frame string
	}{
		"space everywhere": {native.JSON, " {\n\t\"op\" : \"subscribe\" , \"ref\":9, \"channel\": \"trades\", \"symbols\" : [ \"BTCUSDT\" , [ \"A\" , 1 , 2 ] ] , \"every\": 100, \"view\":[ \"last\" ] } \r\n"},
		"any order":        {native.JSON, `{"view":"last","every":100,"symbols":["BTCUSDT",{"seq":2,"epoch":1,"symbol":"A"}],"channel":"trades","ref":9,"op":"subscribe"}`},
		"escapes":          {native.JSON, `{"\u006fp":"sub\u0073cribe","ref":9,"channel":"trades","symbols":["BTC\u0055SDT",{"symbol":"\u0041","epoch":"1","seq":"2"}],"every":100,"view":["last"]}`},
		"nulls":            {native.JSON, `{"op":"subscribe","ref":9,"channel":"trades","symbols":["BTCUSDT",["A",1,2]],"every":100,"view":["last"],"min_size":null,"deadband":null,"silence":null,"token":null}`},
		"unknown keys":     {native.JSON, `{"op":"subscribe","x":{"y":[1,-2.5e-3,"\"",true,null,{}]},"ref":9,"channel":"trades","symbols":["BTCUSDT",["A",1,2]],"every":100,"view":["last"],"z":[]}`},
		"long integers": {native.MsgPack, "\x86\xa2op\xa9subscribe\xa3ref\xcf\x00\x00\x00\x00\x00\x00\x00\x09\xa7channel\xa6trades" +
			"\xa7symbols\xdc\x00\x02\xd9\x07BTCUSDT\xdd\x00\x00\x00\x03\xda\x00\x01A\xd3\x00\x00\x00\x00\x00\x00\x00\x01\xd1\x00\x02\xa5every\xcc\x64\xa4view\x91\xdb\x00\x00\x00\x04last"},
		"from as a map, unknown keys of all kinds": {native.MsgPack, "\xde\x00\x07\xa2op\xa9subscribe\xa3ref\x09\xa7channel\xa6trades" +
			"\xa7symbols\x92\xa7BTCUSDT\x83\xa6symbol\xa1A\xa5epoch\x01\xa3seq\x02\xa5every\x64\xa4view\xa4last" +
			"\xa1x\x9c\xc0\xc2\xc3\xe0\xca\x00\x00\x00\x00\xcb\x00\x00\x00\x00\x00\x00\x00\x00\xc4\x01\x00\xc7\x01\x05\x00\xd6\xff\x00\x00\x00\x00\xd2\x00\x00\x00\x00\x81\x01\x02\xa1z"},
	} {
		t.Run(name, func(t *testing.T) {
			var got codec.Command
			if err := tt.s.DecodeCommand([]byte(tt.frame), &got); err != nil || !equal(&got, &want) {
				t.Errorf("DecodeCommand(%q) = %v, %+v, want %+v", tt.frame, err, got, want)
			}
		})
	}
}

// TestPatternOfFullLength: a name of 32 and a star is the longest pattern.
func TestPatternOfFullLength(t *testing.T) {
	want := codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTicker, Symbols: symbols(named(strings.Repeat("A", 32) + "*"))}
	for _, s := range spellings {
		var got codec.Command
		if err := s.DecodeCommand(s.AppendCommand(nil, &want), &got); err != nil || !equal(&got, &want) {
			t.Errorf("%s: %v, %+v", s.Subprotocol(), err, got)
		}
	}
}

// TestRefAfterFault: an answer to a frame that was no command can tell which.
func TestRefAfterFault(t *testing.T) {
	for _, s := range spellings {
		good := codec.Command{Op: codec.OpPing, Ref: 77}
		frame := append(s.AppendCommand(nil, &good), 'x')
		var c codec.Command
		if err := s.DecodeCommand(frame, &c); err == nil || c.Ref != 77 {
			t.Errorf("%s: %v, ref %d, want an error and 77", s.Subprotocol(), err, c.Ref)
		}
	}
}

// worst are the frames of 64 KiB that cost most, by name: most of them are
// refused, as late as can be.
func worst(s native.Spelling) map[string][]byte {
	head := `{"op":"subscribe","channel":"ticker","symbols":[`
	fill := func(prefix, each, suffix string) []byte {
		n := (codec.CommandBytesMax - len(prefix) - len(suffix)) / len(each)
		return []byte(prefix + strings.Repeat(each, n) + suffix)
	}
	if s.Text() {
		name := strings.Repeat("Z", codec.SymbolBytesMax)
		var all strings.Builder // of every bound as much as it allows, in its dearest form
		all.WriteString(`{"op":"subscribe","x":[` + strings.Repeat(`[],`, 55) + `1],"channel":"ticker","symbols":[`)
		all.WriteString(strings.Repeat(`{"seq":1,"epoch":1,"symbol":"\u0041"},`, 8))
		all.WriteString(strings.Repeat("{ \"seq\":\"18446744073709551615\",\n\"epoch\"\t: \"9223372036854775807\" , \"symbol\": \"A\"\n} ,\n", native.FromMax-8))
		all.WriteString(strings.Repeat(`"`+name[:20]+"\",\t \n", native.SymbolsMax-native.FromMax-1))
		all.WriteString(strings.Repeat(" \n", 5<<10) + `"a"]}`)
		return map[string][]byte{
			"symbols, a million":        fill(head, `"A",`, `"A"]}`),
			"symbols, last is bad":      []byte(head + strings.Repeat(`"A",`, native.SymbolsMax-1) + `"a"]}`),
			"long symbols, last is bad": fill(head, `"`+name+`",`, `"a"]}`),
			"from, last is bad":         fill(head, `["A",1,1],`, `"a"]}`),
			"escaped symbols, bad end":  fill(head, `"\u0041",`, `"a"]}`),
			"objects, last is bad":      fill(head, `{"symbol":"A"},`, `"a"]}`),
			"objects reversed, bad end": fill(head, `{"seq":1,"epoch":1,"symbol":"A"},`, `"a"]}`),
			"patterns, last is bad":     []byte(head + strings.Repeat(`"*",`, native.SymbolsMax-1) + `"a"]}`),
			"spaced, last is bad":       fill(head, `{ "seq" : 0 , "epoch" : 1 , "symbol" : "A" } , `, `"a"]}`),
			"strings of digits":         fill(head, `["A","9223372036854775807","18446744073709551615"],`, `"a"]}`),
			"minus zero":                fill(head, `["A",-0,-0],`, `"a"]}`),
			"all at once":               []byte(all.String()),
			"lists of lists":            fill(head, `[`, ``),
			"nested objects":            fill(``, `{"a":`, ``),
			"nested under unknown":      fill(`{"op":"ping","x":`, `[`, ``),
			"wide under unknown":        fill(`{"op":"ping","x":[`, `1,`, `1]}`),
			"empty lists under unknown": fill(`{"op":"ping","x":[`, `[],`, `1]}`),
			"words under unknown":       fill(`{"op":"ping","x":[`, `null,`, `1]}`),
			"texts under unknown":       fill(`{"op":"ping","x":[`, `"",`, `1]}`),
			"maps under unknown":        fill(`{"op":"ping","x":[`, `{"":{}},`, `1]}`),
			"escapes under unknown":     fill(`{"op":"ping","x":["`, `\n`, `"]}`),
			"strings under unknown":     fill(`{"op":"ping","x":["`, `\u0000`, `"]}`),
			"long string":               fill(`{"op":"auth","token":"`, `x`, `"}`),
			"long string, never closed": fill(`{"op":"auth","token":"`, `x`, ``),
			"long escaped string":       fill(`{"op":"auth","token":"`, `\u00e9`, `"}`),
			"no UTF-8":                  fill(`{"op":"auth","token":"`, "\xff", `"}`),
			"long key":                  fill(`{"`, `x`, `":1}`),
			"many keys":                 fill(`{`, `"x":1,`, `"op":"ping"}`),
			"space":                     fill(`{"op":"ping"`, ` `, `}`),
			"space between symbols":     fill(head, "\"A\",               ", `"a"]}`),
			"digits":                    fill(`{"op":"ping","ref":`, `1`, `}`),
			"digits in a filter":        fill(`{"op":"subscribe","min_size":"`, `0`, `"}`),
			"trailing":                  fill(`{"op":"ping"}`, `x`, ``),
		}
	}
	packed := "\x83\xa2op\xa9subscribe\xa7channel\xa6ticker\xa7symbols"
	list := func(n int, each, last string) []byte {
		n = min(n, (codec.CommandBytesMax-len(packed)-len(last)-3)/len(each)+1)
		return []byte(packed + "\xdc" + string([]byte{byte(n >> 8), byte(n)}) + strings.Repeat(each, n-1) + last)
	}
	var all strings.Builder
	all.WriteString("\x84\xa2op\xa9subscribe\xa1x\xdc\x00\x38" + strings.Repeat("\x90", 55) + "\x01\xa7channel\xa6ticker\xa7symbols\xdc\x03\xe8")
	all.WriteString(strings.Repeat("\xdf\x00\x00\x00\x03\xdb\x00\x00\x00\x03seq\xb418446744073709551615\xdb\x00\x00\x00\x05epoch\xb39223372036854775807\xdb\x00\x00\x00\x06symbol\xa1A", native.FromMax))
	all.WriteString(strings.Repeat("\xdb\x00\x00\x00\x20"+strings.Repeat("Z", codec.SymbolBytesMax), native.SymbolsMax-native.FromMax-1) + "\xa1a")
	return map[string][]byte{
		"all at once":               []byte(all.String()),
		"symbols, a million":        append([]byte(packed+"\xdd\x00\x0f\x42\x40"), bytes.Repeat([]byte("\xa1A"), codec.CommandBytesMax/2-len(packed))...),
		"symbols, last is bad":      list(native.SymbolsMax, "\xa1A", "\xa1a"),
		"long symbols, last is bad": list(native.SymbolsMax, "\xd9\x20"+strings.Repeat("Z", codec.SymbolBytesMax), "\xa1a"),
		"from, last is bad":         list(native.SymbolsMax, "\x93\xa1A\xd3\x00\x00\x00\x00\x00\x00\x00\x01\x01", "\xa1a"),
		"from, too much memory":     list(native.SymbolsMax, "\x93\xa1A\x01\x01", "\xa1a"),
		"maps, last is bad":         list(native.SymbolsMax, "\x81\xa6symbol\xa1A", "\xa1a"),
		"maps reversed, bad end":    list(native.SymbolsMax, "\x83\xa3seq\x01\xa5epoch\x01\xa6symbol\xa1A", "\xa1a"),
		"lists of lists":            fill(packed, "\x91", ""),
		"nested maps":               fill("", "\x81\xa1a", ""),
		"nested under unknown":      fill("\x82\xa2op\xa4ping\xa1x", "\x91", ""),
		"wide under unknown":        fill("\x82\xa2op\xa4ping\xa1x\xdc\xff\xf0", "\x01", ""),
		"empty lists under unknown": fill("\x82\xa2op\xa4ping\xa1x\xdc\x03\xff", "\x90", ""),
		"binary under unknown":      fill("\x82\xa2op\xa4ping\xa1x\xc5\xff\xe0", "x", ""),
		"long string":               fill("\x82\xa2op\xa4auth\xa5token\xda\xff\xe0", "x", ""),
		"no UTF-8":                  fill("\x82\xa2op\xa4auth\xa5token\xda\x0f\x00", "\xff", ""),
		"long key":                  fill("\x81\xda\xff\xf0", "x", ""),
		"many keys":                 fill("\xde\xff\xff", "\xa1x\x01", ""),
		"trailing":                  fill("\x81\xa2op\xa4ping", "x", ""),
	}
}

// TestWorst: none of the worst frames is read, and all are of full length or
// full count.
func TestWorst(t *testing.T) {
	for _, s := range spellings {
		for name, frame := range worst(s) {
			var c codec.Command
			err := s.DecodeCommand(frame, &c)
			var no *codec.Error
			if !errors.As(err, &no) {
				t.Errorf("%s, %s: was read", s.Subprotocol(), name)
			} else if name == "all at once" && no.Where != fmt.Sprintf("symbols[%d]", native.SymbolsMax-1) {
				t.Errorf("%s, %s: refused before its last symbol: %v", s.Subprotocol(), name, err)
			}
			if len(frame) > codec.CommandBytesMax {
				t.Errorf("%s, %s: %d bytes", s.Subprotocol(), name, len(frame))
			}
		}
	}
}

// BenchmarkRefused: a frame that is refused costs at most 50 us.
func BenchmarkRefused(b *testing.B) {
	for _, s := range spellings {
		for name, frame := range worst(s) {
			b.Run(s.Subprotocol()+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				var c codec.Command
				for b.Loop() {
					if s.DecodeCommand(frame, &c) == nil {
						b.Fatal("read")
					}
				}
			})
		}
	}
}

// TestAcceptedMemory: a frame that is read takes at most 64 KiB besides itself.
func TestAcceptedMemory(t *testing.T) {
	const bytesMax = 64 << 10
	long := strings.Repeat("Z", codec.SymbolBytesMax)
	want := codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTicker}
	for i := range native.SymbolsMax {
		if i < native.FromMax {
			want.Symbols.Append(from(long[:20], 1, 1))
		} else {
			want.Symbols.Append(named(long + "*"))
		}
	}
	token := codec.Command{Op: codec.OpAuth, Token: bytes.Repeat([]byte("x"), codec.SmallCommandBytesMax-64)}
	for _, s := range spellings {
		frames := map[string][]byte{"symbols": s.AppendCommand(nil, &want), "token": s.AppendCommand(nil, &token)}
		for _, c := range goldenCommands() {
			frames["golden "+c.name] = s.AppendCommand(nil, &c.want)
		}
		if s.Text() {
			frames["escapes"] = []byte(`{"op":"auth","token":"` + strings.Repeat(`\n`, 128) + strings.Repeat("x", 3<<10) + `"}`)
			frames["lists"] = []byte(`{"op":"set","channel":"ticker","symbols":["A"` + strings.Repeat(`,["A",1,1]`, native.FromMax) + strings.Repeat(`,"B*"`, native.SymbolsMax-native.FromMax-1) + `]}`)
		} else {
			frames["lists"] = []byte("\x83\xa2op\xa3set\xa7channel\xa6ticker\xa7symbols\xdc\x03\xe8" +
				strings.Repeat("\x93\xa1A\x01\x01", native.FromMax) + strings.Repeat("\xd9\x20"+long, native.SymbolsMax-native.FromMax))
		}
		for name, frame := range frames {
			least := uint64(math.MaxUint64) // others may allocate meanwhile
			for range 5 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				var c codec.Command
				if err := s.DecodeCommand(frame, &c); err != nil {
					t.Fatalf("%s, %s: %v", s.Subprotocol(), name, err)
				}
				runtime.ReadMemStats(&after)
				least = min(least, after.TotalAlloc-before.TotalAlloc)
			}
			if least > bytesMax {
				t.Errorf("%s, %s: a frame of %d bytes took %d bytes of memory", s.Subprotocol(), name, len(frame), least)
			}
		}
	}
}

// BenchmarkAccepted: a frame that is read costs at most 40 ns a symbol.
func BenchmarkAccepted(b *testing.B) {
	name := func(i int) string { return fmt.Sprintf("SYM%04dUSDT", i) }
	names := codec.Command{Op: codec.OpSubscribe, Channel: codec.ChannelTicker}
	froms := names
	for i := range native.SymbolsMax {
		names.Symbols.Append(named(name(i)))
	}
	for i := range native.FromMax {
		froms.Symbols.Append(from(name(i), 1723075200000, uint64(i)*1000))
	}
	written := func(format string) []byte { // as a library of another language writes it
		var items []string
		for i := range native.FromMax {
			items = append(items, fmt.Sprintf(format, name(i), 1723075200000, i*1000))
		}
		return []byte(`{"op":"subscribe","channel":"ticker","symbols":[` + strings.Join(items, ", ") + `]}`)
	}
	for _, bb := range []struct {
		s       native.Spelling
		shape   string
		symbols int
		frame   []byte
	}{
		{native.MsgPack, "names", native.SymbolsMax, native.MsgPack.AppendCommand(nil, &names)},
		{native.MsgPack, "from", native.FromMax, native.MsgPack.AppendCommand(nil, &froms)},
		{native.JSON, "names", native.SymbolsMax, native.JSON.AppendCommand(nil, &names)},
		{native.JSON, "from", native.FromMax, native.JSON.AppendCommand(nil, &froms)},
		{native.JSON, "from-spaced", native.FromMax, written(`{"symbol": "%s", "epoch": %d, "seq": %d}`)},
		{native.JSON, "from-sorted", native.FromMax, written(`{"epoch":%[2]d,"seq":%[3]d,"symbol":"%[1]s"}`)},
		{native.JSON, "from-lists", native.FromMax, written(`["%s",%d,%d]`)},
	} {
		b.Run(fmt.Sprintf("%s/%s=%d", bb.s.Subprotocol(), bb.shape, bb.symbols), func(b *testing.B) {
			b.ReportAllocs()
			var c codec.Command
			for b.Loop() {
				if err := bb.s.DecodeCommand(bb.frame, &c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(bb.symbols), "ns/symbol")
		})
	}
}

// FuzzCommand: no bytes panic; what is read is written as a frame that is read
// as the same, in both spellings.
func FuzzCommand(f *testing.F) {
	for _, s := range spellings {
		for _, c := range goldenCommands() {
			f.Add(s.Text(), s.AppendCommand(nil, &c.want))
		}
	}
	for _, tt := range refusedJSON {
		f.Add(true, []byte(tt.frame))
	}
	for _, tt := range refusedMsgPack {
		f.Add(false, []byte(tt.frame))
	}
	f.Fuzz(func(t *testing.T, text bool, frame []byte) {
		s := native.MsgPack
		if text {
			s = native.JSON
		}
		var c codec.Command
		if err := s.DecodeCommand(frame, &c); err != nil {
			var no *codec.Error
			if !errors.As(err, &no) || no.Code == "" || no.What == "" {
				t.Fatalf("%q: %#v", frame, err)
			}
			return
		}
		for _, other := range spellings {
			var again codec.Command
			b := other.AppendCommand(nil, &c)
			if len(b) > codec.CommandBytesMax {
				continue // one spelling may be longer than the other
			}
			if err := other.DecodeCommand(b, &again); err != nil {
				var no *codec.Error
				if errors.As(err, &no) && no.Code == native.CodeTooBig {
					continue
				}
				t.Fatalf("%q read as %+v, written by %s as %q: %v", frame, c, other.Subprotocol(), b, err)
			}
			if !equal(&c, &again) {
				t.Fatalf("%q read as %+v, written by %s as %q, read as %+v", frame, c, other.Subprotocol(), b, again)
			}
		}
	})
}

// FuzzFrame: no bytes of a gateway panic, or make a client read more than they
// can hold.
func FuzzFrame(f *testing.F) {
	for _, s := range spellings {
		rows := goldenRows()
		for i, r := range rows {
			f.Add(s.Text(), frameOf(s, uint64(i), r))
		}
		f.Add(s.Text(), frameOf(s, 1, rows...))
	}
	f.Add(false, []byte("\xdd\xff\xff\xff\xff\x01\x01"))
	f.Fuzz(func(t *testing.T, text bool, frame []byte) {
		s := native.MsgPack
		if text {
			s = native.JSON
		}
		fr, err := s.OpenFrame(frame)
		if err != nil {
			return
		}
		var u native.Update
		n := 0
		for fr.Next(&u) {
			if n++; n > len(frame) {
				t.Fatalf("%d rows of %d bytes", n, len(frame))
			}
			if u.Type == 0 || u.Type > codec.EventSnapshotEnd && u.Event.Type != u.Type {
				t.Fatalf("%q: %+v", frame, u)
			}
		}
		fr.Next(&u) // past the end nothing happens
	})
}

// TestBadFrames: what is no frame of a gateway is an error.
func TestBadFrames(t *testing.T) {
	for name, tt := range map[string]struct {
		s     native.Spelling
		frame string
	}{
		"json: empty":             {native.JSON, ``},
		"json: a list":            {native.JSON, `[]`},
		"json: no events":         {native.JSON, `{"frame":1,"sent":1}`},
		"json: not closed":        {native.JSON, `{"frame":1,"sent":1,"events":[`},
		"json: not closed behind": {native.JSON, `{"frame":1,"sent":1,"events":[]`},
		"json: trailing":          {native.JSON, `{"frame":1,"sent":1,"events":[]}x`},
		"json: row no object":     {native.JSON, `{"frame":1,"sent":1,"events":[1]}`},
		"json: price no string":   {native.JSON, `{"frame":1,"sent":1,"events":[{"type":"ticker","last":1.5}]}`},
		"json: price no number":   {native.JSON, `{"frame":1,"sent":1,"events":[{"type":"ticker","last":"1,5"}]}`},
		"json: time beyond":       {native.JSON, `{"frame":1,"sent":9223372036854775807,"events":[]}`},
		"msgpack: empty":          {native.MsgPack, ""},
		"msgpack: a map":          {native.MsgPack, "\x80"},
		"msgpack: no head":        {native.MsgPack, "\x91\x01"},
		"msgpack: rows missing":   {native.MsgPack, "\x93\x01\x01"},
		"msgpack: row no list":    {native.MsgPack, "\x93\x01\x01\x01"},
		"msgpack: row empty":      {native.MsgPack, "\x93\x01\x01\x90"},
		"msgpack: row short":      {native.MsgPack, "\x93\x01\x01\x92\x14"},
		"msgpack: group short":    {native.MsgPack, "\x93\x01\x01\x96\x01\x01\x01\x01\x01\x01"},
		"msgpack: scale 19":       {native.MsgPack, "\x93\x01\x01\x9b\x01\x01\x01\x01\x01\x01\x01\x13\x01\x00\x00"},
		"msgpack: lag beyond":     {native.MsgPack, "\x93\x01\x01\x96\x01\x01\x00\x01\x01\x02"},
		"msgpack: trailing":       {native.MsgPack, "\x92\x01\x01\x01"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := tt.s.OpenFrame([]byte(tt.frame))
			for u := (native.Update{}); err == nil && f.Next(&u); {
			}
			if err == nil {
				err = f.Err()
			}
			var no *codec.Error
			if !errors.As(err, &no) {
				t.Errorf("frame %q was read: %v", tt.frame, err)
			}
		})
	}
	for _, s := range spellings {
		if _, err := s.OpenFrame(make([]byte, native.FrameBytesMax+1)); err == nil {
			t.Errorf("%s: a frame of FrameBytesMax+1 was opened", s.Subprotocol())
		}
	}
}

// TestLaterVersion: rows, keys and elements of a later version are passed over.
func TestLaterVersion(t *testing.T) {
	for _, s := range spellings {
		frame := "{\"v\":2,\"frame\":1,\"sent\":2,\"events\":[{\"type\":\"tape\",\"last\":5},{\"type\":\"pong\",\"ref\":3,\"x\":[{}]},{\"x\":1,\"type\":\"tape\"}],\"y\":{}}"
		if !s.Text() {
			frame = "\x95\x01\x02\x93\x7f\x01\x80\x95\x14\x03\xa1x\x91\x80\xcb\x00\x00\x00\x00\x00\x00\x00\x00\x92\xcc\xff\x00"
		}
		want := []native.Update{{Type: codec.EventPong, SentTime: 2000, Event: codec.Event{Type: codec.EventPong, Ref: 3}}}
		if got := readAll(t, s, []byte(frame)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", s.Subprotocol(), got, want)
		}
	}
}

// TestNoUnmarshal: nothing of codec decodes by a library that believes what a
// header claims.
func TestNoUnmarshal(t *testing.T) {
	forbidden := []string{"Unmarshal", "msgpack/v5", "encoding/json"}
	err := filepath.WalkDir("..", func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, word := range forbidden {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s has %q: decode by hand", path, word)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Who sends too many is told how many there may be, in either spelling.
func TestTooManyTellsHowMany(t *testing.T) {
	list := strings.Repeat(`"A",`, 1000) + `"A"`
	packed := append([]byte("\x82\xa2op\xa9subscribe\xa7symbols\xdc\x03\xe9"), strings.Repeat("\xa1A", 1001)...)
	for _, tt := range []struct {
		dialect codec.Dialect
		frame   []byte
	}{
		{native.JSON, []byte(`{"op":"subscribe","symbols":[` + list + `]}`)},
		{native.MsgPack, packed},
	} {
		var c codec.Command
		var no *codec.Error
		if err := tt.dialect.DecodeCommand(tt.frame, &c); !errors.As(err, &no) || no.Code != native.CodeTooMany || no.Want != "at most 1000" {
			t.Errorf("%s: %+v, want too-many, at most 1000", tt.dialect.Subprotocol(), err)
		}
	}
}
