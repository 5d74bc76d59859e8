// Package peers measures Go's golang.org/x/oauth2 as its documentation has it used: a token source that reuses its token
// until ten seconds before the end. The suites `peers` and `stampede` build and run this and read what it prints.
package peers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// tokens is a cold source. The style is named, because finding it out costs another request.
func tokens() oauth2.TokenSource {
	config := clientcredentials.Config{
		ClientID:     "svc",
		ClientSecret: "correct-horse",
		TokenURL:     os.Getenv("TOKEN_URL"),
		AuthStyle:    oauth2.AuthStyleInParams,
	}
	return config.TokenSource(context.Background())
}

// warm is a source that has a token.
func warm(b *testing.B) oauth2.TokenSource {
	source := tokens()
	if _, err := source.Token(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	return source
}

func BenchmarkToken(b *testing.B) {
	source := warm(b)
	for i := 0; i < b.N; i++ {
		if _, err := source.Token(); err != nil {
			b.Fatal(err)
		}
	}
}

// One request is given its header again and again.
func BenchmarkHeader(b *testing.B) {
	request, err := http.NewRequest("GET", "http://127.0.0.1/", nil)
	if err != nil {
		b.Fatal(err)
	}
	source := warm(b)
	for i := 0; i < b.N; i++ {
		token, err := source.Token()
		if err != nil {
			b.Fatal(err)
		}
		token.SetAuthHeader(request)
	}
}

// As many threads as -test.cpu says.
func BenchmarkShared(b *testing.B) {
	source := warm(b)
	b.RunParallel(func(loop *testing.PB) {
		for loop.Next() {
			if _, err := source.Token(); err != nil {
				b.Error(err)
			}
		}
	})
}

func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		panic(err)
	}
	return value
}

// TestStampede has CALLERS come at once, WAIT_MS after somebody got a first token (0: nobody did), and stops looking after
// LIMIT_MS.
func TestStampede(t *testing.T) {
	source := tokens()
	if wait := number("WAIT_MS"); wait > 0 {
		if _, err := source.Token(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(wait) * time.Millisecond)
	}
	var answered, failed atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for i := number("CALLERS"); i > 0; i-- {
		all.Add(1)
		go func() {
			defer all.Done()
			if _, err := source.Token(); err != nil {
				failed.Add(1)
			}
			answered.Add(1)
		}()
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Duration(number("LIMIT_MS")) * time.Millisecond):
	}
	took := time.Since(start)
	fmt.Printf("stampede %d %d %d\n", answered.Load(), failed.Load(), took.Nanoseconds())
}
