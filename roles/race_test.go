//go:build race

package roles_test

// raceDetector tells that the tests are watched for data races.
const raceDetector = true
