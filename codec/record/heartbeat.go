package record

import "math"

// Heartbeat is what the owner of a raw partition says twice a second: that it
// lives, how far it has come, and when the venue was last heard.
type Heartbeat struct {
	RawTopic   string
	RawTopicID [16]byte
	Partition  int32
	Venue      string
	Era        int16
	Position   int64 // next raw offset to be read
	End        int64 // of the raw partition when it last looked
	LastTime   int64 // Unix ns: timestamp of the last raw message of any kind; 0: none yet
	Time       int64 // Unix ns: the feed's clock
}

const heartbeatLen = 10

// AppendHeartbeat appends hb's spelling: an array of version, raw topic, its
// id, partition, venue, era, position, end, time of the last message, time.
func AppendHeartbeat(dst []byte, hb *Heartbeat) []byte {
	dst = append(dst, 0x90|heartbeatLen, Version)
	dst = appendString(dst, hb.RawTopic)
	dst = appendTopicID(dst, &hb.RawTopicID)
	dst = appendInt(dst, int64(hb.Partition))
	dst = appendString(dst, hb.Venue)
	dst = appendInt(dst, int64(hb.Era))
	dst = appendInt(dst, hb.Position)
	dst = appendInt(dst, hb.End)
	dst = appendTime(dst, hb.LastTime)
	return appendInt(dst, hb.Time)
}

// DecodeHeartbeat reads a heartbeat. It overwrites all of hb.
func DecodeHeartbeat(b []byte, hb *Heartbeat) error {
	r := reader{b: b}
	*hb = Heartbeat{}
	more := r.array(heartbeatLen, "a heartbeat: an array of 10")
	r.version()
	r.text(&hb.RawTopic, "raw topic")
	r.topicID(&hb.RawTopicID)
	hb.Partition = int32(r.bounded(math.MaxInt32, "raw partition"))
	r.text(&hb.Venue, "venue")
	hb.Era = int16(r.bounded(math.MaxInt16, "producer era"))
	hb.Position = r.int("position")
	hb.End = r.int("end")
	hb.LastTime = r.time("time of the last message")
	hb.Time = r.int("time")
	r.skip(more, skipDepthMax)
	return r.end()
}
