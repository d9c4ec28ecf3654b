// Reads one cron expression on a line, and says what each parser makes of it: `robfig` (v3, five or six fields) and
// `ringtail` (six fields), as `NAME TIME,TIME,TIME` or `NAME -`. Times are seconds since the epoch, in UTC.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	ringtail "github.com/ringtail/go-cron"
	robfig "github.com/robfig/cron/v3"
)

type schedule interface{ Next(time.Time) time.Time }

func told(s schedule, err error) string {
	if err != nil || s == nil {
		return "-"
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var times []string
	for range 3 {
		now = s.Next(now)
		if now.IsZero() {
			break
		}
		times = append(times, fmt.Sprint(now.Unix()))
	}
	return strings.Join(times, ",")
}

func main() {
	in, out := bufio.NewScanner(os.Stdin), bufio.NewWriter(os.Stdout)
	defer out.Flush()
	six := robfig.NewParser(robfig.Second | robfig.Minute | robfig.Hour | robfig.Dom | robfig.Month | robfig.Dow | robfig.Descriptor)
	for in.Scan() {
		text := in.Text()
		parse := six.Parse
		if len(strings.Fields(text)) == 5 {
			parse = robfig.ParseStandard
		}
		s, err := parse(text)
		var r schedule
		var rerr error
		func() {
			defer func() {
				if recover() != nil {
					rerr = fmt.Errorf("panics")
				}
			}()
			r, rerr = ringtail.Parse(text)
		}()
		fmt.Fprintf(out, "%s %s\n", told(s, err), told(r, rerr))
	}
}
