package native_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"tickgate/codec/native"
)

// document is asyncapi.yaml, as what JSON would make of it.
func document(t *testing.T) map[string]any {
	t.Helper()
	b, err := os.ReadFile("asyncapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text).(map[string]any)
}

func parse(t *testing.T, text []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// schemas compiles what the document's schemas are called.
type schemas struct {
	t        *testing.T
	doc      map[string]any
	compiler *jsonschema.Compiler
}

func newSchemas(t *testing.T) schemas {
	doc := document(t)
	c := jsonschema.NewCompiler()
	if err := c.AddResource("asyncapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return schemas{t, doc, c}
}

func (s schemas) schema(name string) *jsonschema.Schema {
	s.t.Helper()
	sch, err := s.compiler.Compile("asyncapi.json#/components/schemas/" + name)
	if err != nil {
		s.t.Fatal(err)
	}
	return sch
}

// named is all schemas of the document.
func (s schemas) named() map[string]any {
	return s.doc["components"].(map[string]any)["schemas"].(map[string]any)
}

// branches are the schemas that one of alternatives consists of.
func (s schemas) branches(name string) (names []string) {
	for _, b := range s.named()[name].(map[string]any)["oneOf"].([]any) {
		names = append(names, strings.TrimPrefix(b.(map[string]any)["$ref"].(string), "#/components/schemas/"))
	}
	return names
}

// spelled is one golden message as a schema sees it.
type spelled struct {
	name, schema string
	value        any
}

// messages are all golden messages in both spellings.
func messages(t *testing.T) (all []spelled) {
	golden := readGolden(t)
	for _, e := range golden.Frames {
		all = append(all, spelled{e.Name, "Frame", parse(t, e.JSON)}, spelled{e.Name, "PackedFrame", parse(t, e.Elements)})
	}
	for _, e := range golden.Commands {
		all = append(all, spelled{e.Name, "Command", parse(t, e.JSON)}, spelled{e.Name, "Command", parse(t, e.Elements)})
	}
	return all
}

// TestDocumentAllowsGolden: every golden message is allowed by the document,
// and no branch of it is without one.
func TestDocumentAllowsGolden(t *testing.T) {
	s := newSchemas(t)
	used := make(map[string]int)
	count := func(of string, value any) {
		for _, branch := range s.branches(of) {
			if s.schema(branch).Validate(value) == nil {
				used[branch]++
			}
		}
	}
	for _, m := range messages(t) {
		if err := s.schema(m.schema).Validate(m.value); err != nil {
			t.Errorf("golden %q as %s: %v", m.name, m.schema, err)
		}
		switch m.schema {
		case "Frame":
			for _, row := range m.value.(map[string]any)["events"].([]any) {
				count("Row", row)
			}
		case "PackedFrame":
			for _, row := range m.value.([]any)[2:] {
				count("PackedRow", row)
			}
		default:
			count("Command", m.value)
		}
	}
	for _, of := range []string{"Row", "PackedRow", "Command"} {
		for _, branch := range s.branches(of) {
			if used[branch] == 0 {
				t.Errorf("no golden message is a %s", branch)
			}
		}
	}
	// The words of an enumeration are branches too.
	var text strings.Builder
	for _, m := range messages(t) {
		b, _ := json.Marshal(m.value)
		text.Write(b)
	}
	for name, sch := range s.named() {
		for _, word := range enum(sch) {
			if w, ok := word.(string); ok && w != "all" && !strings.Contains(text.String(), `"`+w+`"`) {
				t.Errorf("no golden message has %s %q", name, w)
			}
		}
	}
}

func enum(schema any) []any {
	m, _ := schema.(map[string]any)
	if items, ok := m["items"].(map[string]any); ok {
		m = items
	}
	list, _ := m["enum"].([]any)
	return list
}

// TestDocumentRefusesOther: a golden message that lacks a key or an element,
// has another one, or a value of another kind, is not allowed.
func TestDocumentRefusesOther(t *testing.T) {
	s := newSchemas(t)
	for _, m := range messages(t) {
		if m.name == "all rows" { // each has a frame of its own
			continue
		}
		sch := s.schema(m.schema)
		for what, spoiled := range spoil(m.value, optional(m)) {
			if sch.Validate(spoiled) == nil {
				b, _ := json.Marshal(spoiled)
				t.Errorf("golden %q as %s, %s, is allowed: %s", m.name, m.schema, what, b)
			}
		}
	}
}

// optional are the keys without which a message is another legal one: all of a
// command but those that its op needs.
func optional(m spelled) map[string]bool {
	if m.schema != "Command" {
		return nil
	}
	return map[string]bool{"ref": true, "every": true, "view": true, "min_size": true, "deadband": true, "silence": true, "more": true}
}

// spoil yields changed copies of a message, by what was done. Elements of
// groups are left as they are: a group's numbers look alike.
func spoil(v any, optional map[string]bool) map[string]any {
	all := make(map[string]any)
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if !optional[k] {
				without := maps.Clone(v)
				delete(without, k)
				all["without "+k] = without
			}
			for what, inner := range spoil(v[k], optional) {
				with := maps.Clone(v)
				with[k] = inner
				all[k+" "+what] = with
			}
			wrong := maps.Clone(v)
			wrong[k] = json.Number("1.5")
			all["1.5 for "+k] = wrong
		}
		more := maps.Clone(v)
		more["another"] = json.Number("1")
		all["with another key"] = more
	case []any:
		for i := range v {
			inner, isList := v[i].([]any)
			row, isMap := v[i].(map[string]any)
			if isList && len(inner) > 0 {
				short := slices.Clone(v)
				short[i] = inner[:1]
				all[fmt.Sprintf("row %d of one element", i)] = short
				other := slices.Clone(v)
				other[i] = append([]any{json.Number("99")}, inner[1:]...)
				all[fmt.Sprintf("row %d of type 99", i)] = other
				long := slices.Clone(v)
				long[i] = append(slices.Clone(inner), slices.Repeat([]any{json.Number("1.5")}, 40)...)
				all[fmt.Sprintf("row %d with 40 more", i)] = long
			}
			if isMap {
				for what, changed := range spoil(row, optional) {
					with := slices.Clone(v)
					with[i] = changed
					all[fmt.Sprintf("%d %s", i, what)] = with
				}
			}
		}
	}
	return all
}

// TestDocumentRefusesWhatWeRefuse: a command that is refused for its values is
// not allowed by the document, as far as a schema can say it.
func TestDocumentRefusesWhatWeRefuse(t *testing.T) {
	s := newSchemas(t)
	command := s.schema("Command")
	checked := 0
	for name, tt := range refusedJSON {
		switch tt.code {
		case native.CodeBadValue, native.CodeBadSymbol, native.CodeMissingKey, native.CodeUnknownOp:
		default:
			continue // its bytes are wrong, not its values
		}
		if !json.Valid([]byte(tt.frame)) || strings.Contains(tt.frame, "1.0") || strings.Contains(tt.frame, "1e3") {
			continue // to a schema 1.0 is an integer
		}
		if strings.Contains(tt.frame, "\xff") || strings.Contains(tt.frame, "\xc3") || strings.Contains(tt.frame, `"ref":""`) || strings.HasPrefix(name, "ref") {
			continue // bytes again
		}
		checked++
		if command.Validate(parse(t, []byte(tt.frame))) == nil {
			t.Errorf("%s is allowed by the document: %.200s", name, tt.frame)
		}
	}
	if checked < 15 {
		t.Errorf("only %d refused commands were looked at", checked)
	}
}

// TestDocumentIsWhole: every reference of the document leads somewhere, every
// schema is sound and used, and the channel, its messages and operations are
// as an AsyncAPI 3 document has them.
func TestDocumentIsWhole(t *testing.T) {
	s := newSchemas(t)
	referenced := make(map[string]bool)
	var walk func(v any, path string)
	walk = func(v any, path string) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				referenced[ref] = true
				if lookup(s.doc, ref) == nil {
					t.Errorf("%s refers to %s, which is not there", path, ref)
				}
			}
			for k, inner := range v {
				walk(inner, path+"/"+k)
			}
		case []any:
			for i, inner := range v {
				walk(inner, fmt.Sprint(path, "/", i))
			}
		}
	}
	walk(s.doc, "#")
	for name := range s.named() {
		s.schema(name)
		if !referenced["#/components/schemas/"+name] {
			t.Errorf("schema %s is not used", name)
		}
	}
	if v := s.doc["asyncapi"]; v != "3.0.0" {
		t.Errorf("asyncapi: %v", v)
	}
	for name, op := range s.doc["operations"].(map[string]any) {
		op := op.(map[string]any)
		if a := op["action"]; a != "send" && a != "receive" {
			t.Errorf("operation %s has the action %v", name, a)
		}
		for _, m := range op["messages"].([]any) {
			ref := m.(map[string]any)["$ref"].(string)
			if !strings.HasPrefix(ref, op["channel"].(map[string]any)["$ref"].(string)+"/messages/") {
				t.Errorf("operation %s has the message %s, which is not of its channel", name, ref)
			}
		}
	}
}

func lookup(doc any, ref string) any {
	for _, part := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		m, _ := doc.(map[string]any)
		doc = m[part]
	}
	return doc
}

// TestCodesAreDocumented: each code of an error, ours and those that stand in
// golden frames, is explained in the package documentation.
func TestCodesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("native.go")
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile(goldenPath)
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Code\w+ += "([a-z-]+)"`).FindAllSubmatch(source, -1)
	codes = append(codes, regexp.MustCompile(`"code":"([^"]*)"`).FindAllSubmatch(golden, -1)...)
	if len(codes) < 10 {
		t.Fatalf("only %d codes found", len(codes))
	}
	for _, m := range codes {
		if !bytes.Contains(doc, slices.Concat([]byte("\n//\t"), m[1], []byte(" "))) {
			t.Errorf("doc.go does not say what %s means", m[1])
		}
	}
}
