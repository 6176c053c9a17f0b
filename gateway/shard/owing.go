package shard

// owingHeap orders the sessions whose sockets took nothing by when to try again.
type owingHeap []*Session

func (h owingHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].owingIndex, h[j].owingIndex = i, j
}

func (h *owingHeap) push(se *Session) {
	se.owingIndex = len(*h)
	*h = append(*h, se)
	h.up(se.owingIndex)
}

// remove takes out the session that stands at i.
func (h *owingHeap) remove(i int) *Session {
	last := len(*h) - 1
	h.swap(i, last)
	se := (*h)[last]
	(*h)[last] = nil
	if *h = (*h)[:last]; i < last {
		h.up(i)
		h.down(i)
	}
	return se
}

func (h owingHeap) up(i int) {
	for i > 0 {
		above := (i - 1) / 2
		if !h[i].owingAt.Before(h[above].owingAt) {
			return
		}
		h.swap(i, above)
		i = above
	}
}

func (h owingHeap) down(i int) {
	for {
		least := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < len(h) && h[c].owingAt.Before(h[least].owingAt) {
				least = c
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}
