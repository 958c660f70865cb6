package roles

var doctorRole = Role{
	Name: "doctor", Usage: doctorUsage, Summary: "look at a host that diverts to a proxy of its own, and say what is wrong",
	Help: doctorHelp, run: runDoctor,
}
