import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;

/** Logs in with the password in PGPASSWORD and says what it is called. Usage: Proof.java HOST PORT USER DATABASE */
public class Proof {
    public static void main(String[] where) throws Exception {
        String url = "jdbc:postgresql://" + where[0] + ":" + where[1] + "/" + where[3] + "?sslmode=require&ApplicationName=jdbc";
        try (Connection connection = DriverManager.getConnection(url, where[2], System.getenv("PGPASSWORD"));
                Statement statement = connection.createStatement();
                ResultSet rows = statement.executeQuery("show application_name")) {
            rows.next();
            System.out.println(rows.getString(1));
        }
    }
}
