package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/segmentio/kafka-go/compress"

	"tickgate/feed"
)

// Record is one record of a fetch. Its bytes are valid only during the call
// that hands it over.
type Record struct {
	Offset     int64
	Time       int64 // Unix ns, of millisecond grain: Kafka's
	Key, Value []byte

	headers []byte // count and pairs, as on the wire
}

// Headers reads the record's headers. Their values alias the record.
func (r *Record) Headers() []feed.Header {
	d := decoder{b: r.headers}
	n := d.varint()
	if n <= 0 || n > headersMax {
		return nil
	}
	list := make([]feed.Header, 0, n)
	for range n {
		key := d.varbytes()
		value := d.varbytes()
		if d.bad {
			return nil
		}
		list = append(list, feed.Header{Key: string(key), Value: value})
	}
	return list
}

// headersMax bounds the headers that we read of a record.
const headersMax = 64

// Bounds of what a broker may answer.
const (
	responseBytesMax   = 128 << 20
	decompressBytesMax = 64 << 20
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errShort   = errors.New("kafka: answer cut short")
)

// decoder reads Kafka's primitive types; after the first fault it reads zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	x := d.b[:n:n]
	d.b = d.b[n:]
	return x
}

func (d *decoder) int8() int8 {
	if x := d.take(1); x != nil {
		return int8(x[0])
	}
	return 0
}

func (d *decoder) int16() int16 {
	if x := d.take(2); x != nil {
		return int16(binary.BigEndian.Uint16(x))
	}
	return 0
}

func (d *decoder) int32() int32 {
	if x := d.take(4); x != nil {
		return int32(binary.BigEndian.Uint32(x))
	}
	return 0
}

func (d *decoder) int64() int64 {
	if x := d.take(8); x != nil {
		return int64(binary.BigEndian.Uint64(x))
	}
	return 0
}

// text takes a string with a 16-bit length; null is "".
func (d *decoder) text() string { return string(d.take(max(0, int(d.int16())))) }

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() int {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > responseBytesMax {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

func (d *decoder) varbytes() []byte {
	n := d.varint()
	if n < 0 || n > responseBytesMax {
		return nil
	}
	return d.take(int(n))
}

// compactText takes a string whose length is a uvarint, plus one.
func (d *decoder) compactText() string { return string(d.take(max(0, d.uvarint()-1))) }

// tags passes over tagged fields.
func (d *decoder) tags() {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		d.uvarint()
		d.take(d.uvarint())
	}
}

func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func appendCompactText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s))+1)
	return append(b, s...)
}

const batchHeaderBytes = 61

// decodeBatches calls f with each record from offset from on, and returns the
// next offset to fetch. A last batch that is cut off is normal.
func decodeBatches(b []byte, from int64, f func(Record)) (next int64, err error) {
	next = from
	for len(b) >= batchHeaderBytes {
		size := int(int32(binary.BigEndian.Uint32(b[8:])))
		if size < batchHeaderBytes-12 {
			return next, fmt.Errorf("kafka: a batch of %d bytes", size)
		}
		if 12+size > len(b) {
			break
		}
		batch := b[:12+size]
		b = b[12+size:]
		if batch[16] != 2 {
			return next, fmt.Errorf("kafka: record batch of format %d; want 2 (brokers from 0.11 on)", batch[16])
		}
		if crc32.Checksum(batch[21:], castagnoli) != binary.BigEndian.Uint32(batch[17:]) {
			return next, errors.New("kafka: a batch's checksum is wrong")
		}
		base := int64(binary.BigEndian.Uint64(batch))
		attributes := binary.BigEndian.Uint16(batch[21:])
		last := base + int64(int32(binary.BigEndian.Uint32(batch[23:])))
		first := int64(binary.BigEndian.Uint64(batch[27:]))
		newest := int64(binary.BigEndian.Uint64(batch[35:]))
		count := int(int32(binary.BigEndian.Uint32(batch[57:])))
		if last < next || attributes&0x20 != 0 { // read already, or a transaction's marker
			next = max(next, last+1)
			continue
		}
		records, err := decompress(compress.Compression(attributes&7), batch[batchHeaderBytes:])
		if err != nil {
			return next, err
		}
		d := decoder{b: records}
		for range count {
			body := decoder{b: d.take(int(d.varint()))}
			body.int8()
			at, offset := body.varint(), body.varint()
			rec := Record{Offset: base + offset, Time: (first + at) * 1e6, Key: body.varbytes(), Value: body.varbytes(), headers: body.b}
			if attributes&8 != 0 { // the broker's own time
				rec.Time = newest * 1e6
			}
			if d.bad || body.bad {
				return next, errShort
			}
			if rec.Offset >= next {
				f(rec)
			}
		}
		next = last + 1 // not the last record's: compaction leaves holes
	}
	return next, nil
}

func decompress(c compress.Compression, b []byte) ([]byte, error) {
	if c == compress.None {
		return b, nil
	}
	codec := c.Codec()
	if codec == nil {
		return nil, fmt.Errorf("kafka: a batch is compressed in a way we do not know (%d)", c)
	}
	r := codec.NewReader(bytes.NewReader(b))
	defer r.Close()
	out, err := io.ReadAll(io.LimitReader(r, decompressBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("kafka: a %s batch does not decompress: %w", c, err)
	}
	if len(out) > decompressBytesMax {
		return nil, fmt.Errorf("kafka: a %s batch is larger than %d bytes", c, decompressBytesMax)
	}
	return out, nil
}

// batch is a record batch being built, and what became of it.
type batch struct {
	tp    topicPartition
	b     []byte
	n     int32
	first int64 // ms
	last  int64
	seq   int32

	sealed bool
	done   bool
	err    error
}

func (w *batch) add(e *feed.Entry) {
	ms := e.Time / 1e6
	if w.n == 0 {
		w.b = append(w.b[:0], make([]byte, batchHeaderBytes)...)
		w.first, w.last = ms, ms
	}
	w.last = max(w.last, ms)
	var head, mid [32]byte
	h := append(head[:0], 0)
	h = binary.AppendVarint(h, ms-w.first)
	h = binary.AppendVarint(h, int64(w.n))
	if e.Key == nil {
		h = binary.AppendVarint(h, -1)
	} else {
		h = binary.AppendVarint(h, int64(len(e.Key)))
	}
	m := binary.AppendVarint(mid[:0], int64(len(e.Value)))
	size := len(h) + len(e.Key) + len(m) + len(e.Value) + varintLen(int64(len(e.Headers)))
	for i := range e.Headers {
		k, v := len(e.Headers[i].Key), len(e.Headers[i].Value)
		size += varintLen(int64(k)) + k + varintLen(int64(v)) + v
	}
	w.b = binary.AppendVarint(w.b, int64(size))
	w.b = append(w.b, h...)
	w.b = append(w.b, e.Key...)
	w.b = append(w.b, m...)
	w.b = append(w.b, e.Value...)
	w.b = binary.AppendVarint(w.b, int64(len(e.Headers)))
	for i := range e.Headers {
		w.b = binary.AppendVarint(w.b, int64(len(e.Headers[i].Key)))
		w.b = append(w.b, e.Headers[i].Key...)
		w.b = binary.AppendVarint(w.b, int64(len(e.Headers[i].Value)))
		w.b = append(w.b, e.Headers[i].Value...)
	}
	w.n++
}

func varintLen(v int64) int {
	var buf [binary.MaxVarintLen64]byte
	return binary.PutVarint(buf[:], v)
}

// seal fills in the header for a producer.
func (w *batch) seal(producerID int64, era int16, seq int32) {
	b, be := w.b, binary.BigEndian
	be.PutUint64(b, 0)
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], 0xffffffff) // leader epoch: unknown
	b[16] = 2
	be.PutUint16(b[21:], 0)
	be.PutUint32(b[23:], uint32(w.n-1))
	be.PutUint64(b[27:], uint64(w.first))
	be.PutUint64(b[35:], uint64(w.last))
	be.PutUint64(b[43:], uint64(producerID))
	be.PutUint16(b[51:], uint16(era))
	be.PutUint32(b[53:], uint32(seq))
	be.PutUint32(b[57:], uint32(w.n))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	w.seq, w.sealed = seq, true
}
