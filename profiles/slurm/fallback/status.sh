#!/bin/sh
# status.sh JOB: running, success or failed. While the controller is silent, a job is "running":
# an outage loses no job. Only a controller that answers and does not know the job ends it.
text=$(timeout 20 scontrol --oneliner show job "$1" 2>&1)
case "$text" in
    *JobState=COMPLETED*) echo success ;;
    *JobState=PENDING* | *JobState=RUNNING* | *JobState=CONFIGURING* | *JobState=COMPLETING* | \
        *JobState=SUSPENDED* | *JobState=REQUEUE*) echo running ;;
    *JobState=* | *"Invalid job id"*) echo failed ;;
    *) echo running ;;
esac
