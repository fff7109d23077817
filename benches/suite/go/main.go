// Go's side of the comparison: the standard library's context, and a group as
// golang.org/x/sync/errgroup has it, written here so that nothing is fetched.
//
// It reads lines "operation n" and answers each with the nanoseconds that n
// operations took, so that its rounds alternate with those of the others.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// Group waits for goroutines and keeps the first error, which ends its context.
type Group struct {
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	sem    chan struct{}
	once   sync.Once
	err    error
}

func WithContext(ctx context.Context) (*Group, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{cancel: cancel}, ctx
}

func (g *Group) SetLimit(n int) { g.sem = make(chan struct{}, n) }

func (g *Group) Go(f func() error) {
	if g.sem != nil {
		g.sem <- struct{}{}
	}
	g.wg.Add(1)
	go func() {
		defer g.done()
		if err := f(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel(err)
			})
		}
	}()
}

func (g *Group) done() {
	if g.sem != nil {
		<-g.sem
	}
	g.wg.Done()
}

func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(g.err)
	return g.err
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// spawn runs n goroutines that do work.
func spawn(n int, work func()) time.Duration {
	return timed(func() {
		g, _ := WithContext(context.Background())
		for i := 0; i < n; i++ {
			g.Go(func() error {
				work()
				return nil
			})
		}
		must(g.Wait() == nil)
	})
}

func yields(times int) func() {
	return func() {
		for i := 0; i < times; i++ {
			runtime.Gosched()
		}
	}
}

// fail measures from the first error to the last of n siblings gone.
func fail(n int) time.Duration {
	g, ctx := WithContext(context.Background())
	var started sync.WaitGroup
	started.Add(n)
	for i := 0; i < n; i++ {
		g.Go(func() error {
			started.Done()
			<-ctx.Done()
			return ctx.Err()
		})
	}
	started.Wait()
	time.Sleep(time.Millisecond)
	failed := errors.New("failed")
	return timed(func() {
		g.Go(func() error { return failed })
		must(g.Wait() == failed)
	})
}

func derive(n int) time.Duration {
	parent, cancel := context.WithCancel(context.Background())
	defer cancel()
	return timed(func() {
		for i := 0; i < n; i++ {
			_, cancel := context.WithCancel(parent)
			cancel()
		}
	})
}

func endChildren(n int) time.Duration {
	parent, cancel := context.WithCancel(context.Background())
	return end(n, cancel, func(context.Context) context.Context { return parent })
}

func endChain(n int) time.Duration {
	root, cancel := context.WithCancel(context.Background())
	return end(n, cancel, func(last context.Context) context.Context {
		if last == nil {
			return root
		}
		return last
	})
}

func end(n int, cancel func(), parentOf func(last context.Context) context.Context) time.Duration {
	held := make([]context.CancelFunc, n)
	var last context.Context
	for i := range held {
		last, held[i] = context.WithCancel(parentOf(last))
	}
	defer runtime.KeepAlive(held)
	runtime.GC()
	return timed(cancel)
}

func batch(n int) time.Duration {
	return timed(func() {
		g, _ := WithContext(context.Background())
		g.SetLimit(64)
		for i := 0; i < n; i++ {
			g.Go(func() error { return nil })
		}
		must(g.Wait() == nil)
	})
}

func must(ok bool) {
	if !ok {
		panic("the measured code did not do what it should")
	}
}

var operations = map[string]func(n int) time.Duration{
	"at_once":      func(n int) time.Duration { return spawn(n, func() {}) },
	"yield":        func(n int) time.Duration { return spawn(n, yields(1)) },
	"yield4":       func(n int) time.Duration { return spawn(n, yields(4)) },
	"fail":         fail,
	"derive":       derive,
	"end_children": endChildren,
	"end_chain":    endChain,
	"batch":        batch,
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var name string
		var n int
		if _, err := fmt.Sscan(lines.Text(), &name, &n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		operation, ok := operations[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such operation:", name)
			os.Exit(1)
		}
		// What earlier rounds left is not to be collected in this one.
		runtime.GC()
		fmt.Println(operation(n).Nanoseconds())
	}
}
