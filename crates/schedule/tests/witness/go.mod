module penstock.dev/cron-witness

go 1.22

require (
	github.com/ringtail/go-cron v1.0.0
	github.com/robfig/cron/v3 v3.0.1
)

require github.com/satori/go.uuid v1.2.0 // indirect

replace github.com/satori/go.uuid => github.com/gofrs/uuid v4.4.0+incompatible
