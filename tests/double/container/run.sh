#!/bin/sh
# The container's first process, as docker-android's mixins/scripts/run.sh: three supervisors, and it waits.
stop() {
    echo "SIGTERM is received! Clean-up will be executed if needed!"
    kill $(pgrep -f "start device")
    sleep 10
    exit 143
}
trap stop TERM

configs=$APP_PATH/mixins/configs/process
mkdir -p "$LOG_PATH"
# Of docker-android/mixins/scripts/run.sh only the headless form (EMULATOR_HEADLESS) leaves out the screen.
[ "$EMULATOR_HEADLESS" = true ] || /usr/bin/supervisord --configuration "$configs/supervisord-screen.conf" &
/usr/bin/supervisord --configuration "$configs/supervisord-port.conf" &
/usr/bin/supervisord --configuration "$configs/supervisord-base.conf" &
wait
