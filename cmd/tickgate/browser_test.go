package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestPageBrowser looks at dev's page as a person does: twenty rows, and
// prices that move.
func TestPageBrowser(t *testing.T) {
	chrome := os.Getenv("TICKGATE_BROWSER")
	if chrome == "" {
		t.Skip("no browser: TICKGATE_BROWSER names none")
	}
	dev := start(t, "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0")
	page := dev.await(within, `page\s+(http://\S+/)`)[1]

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chrome), chromedp.NoSandbox,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, options...)
	defer cancelAllocator()
	ctx, cancelTab := chromedp.NewContext(ctx)
	defer cancelTab()

	look := func() (rows int, text string) {
		t.Helper()
		rows, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.querySelectorAll("tbody tr").length`))
		if err == nil {
			text, err = chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("tbody").innerText`))
		}
		if err != nil {
			t.Fatal(err)
		}
		return rows, text
	}
	if _, err := chromedp.Run(ctx, chromedp.Navigate(page)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "twenty rows", func() error {
		if rows, text := look(); rows != 20 {
			return fmt.Errorf("%d rows: %s", rows, text)
		}
		return nil
	})
	_, before := look()
	changes := 0
	eventually(t, "the market moves", func() error {
		if _, text := look(); text != before {
			before = text
			changes++
		}
		if changes < 5 {
			return fmt.Errorf("%d changes", changes)
		}
		return nil
	})
	if path := os.Getenv("TICKGATE_SCREENSHOT"); path != "" {
		png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, png, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
